/* Tests of the C interface, from C. Prints "N passed, N failed". */
#define _POSIX_C_SOURCE 200809L

#include <poll.h>
#include <stdlib.h>

#include "check.h"
#include "ottla.h"

static bool readable(const ottla_client *client) {
  struct pollfd fd = {.fd = ottla_client_fd(client), .events = POLLIN};
  return poll(&fd, 1, 0) == 1 && (fd.revents & POLLIN) != 0;
}

static ottla_consumer *consume(ottla_client *client, const char *topic, uint64_t tag) {
  ottla_consumer_options options = OTTLA_CONSUMER_OPTIONS_INIT;
  ottla_consumer *consumer = NULL;
  options.topics = &topic;
  options.topic_count = 1;
  options.tag = tag;
  OK(ottla_consumer_new(client, &options, &consumer, E));
  return consumer;
}

static ottla_producer *produce(ottla_client *client, const ottla_producer_options *options) {
  ottla_producer *producer = NULL;
  OK(ottla_producer_new(client, options, &producer, E));
  return producer;
}

static void echo_round_trip(void) {
  ottla_client *client = NULL;
  OK(ottla_client_new_echo(&client, E));
  ottla_producer *producer = produce(client, NULL);
  ottla_consumer *consumer = consume(client, "events", 5);

  ottla_batch *batch = NULL;
  OK(ottla_consumer_try_next(consumer, &batch, E));
  CHECK(batch == NULL);
  CHECK(!readable(client));

  ottla_header headers[2] = {
      {.name = "trace", .name_len = 5, .value = (const uint8_t *)"1", .value_len = 1},
      {.name = "null", .name_len = 4},
  };
  ottla_record records[3] = {
      {.value = (const uint8_t *)"hello", .value_len = 5, .key = (const uint8_t *)"k", .key_len = 1},
      {.headers = headers, .header_count = 2, .timestamp_ms = 77, .flags = OTTLA_RECORD_TIMESTAMP},
      {.value = (const uint8_t *)"", .partition = 2, .flags = OTTLA_RECORD_PARTITION},
  };
  size_t accepted = 0;
  OK(ottla_producer_send_batch(producer, "events", records, 3, 42, &accepted, E));
  CHECK(accepted == 3);
  CHECK(readable(client));

  ottla_completion done[8];
  size_t count = 0;
  OK(ottla_poll(client, done, 1, 0, &count, E));
  CHECK(count == 1 && readable(client));
  CHECK(done[0].kind == OTTLA_COMPLETION_DELIVERY && done[0].tag == 42 && done[0].error == NULL);
  CHECK(done[0].first == 0 && done[0].count == 2 && done[0].partition == 0 && done[0].offset == 0);
  CHECK(done[0].timestamp_ms > 0);
  OK(ottla_poll(client, done, 8, -1, &count, E));
  CHECK(count == 2 && !readable(client));
  CHECK(done[0].first == 2 && done[0].count == 1 && done[0].partition == 2);
  CHECK(done[1].kind == OTTLA_COMPLETION_CONSUMER_READY && done[1].tag == 5);
  OK(ottla_poll(client, done, 8, 0, &count, E));
  CHECK(count == 0);

  OK(ottla_consumer_try_next(consumer, &batch, E));
  CHECK(batch != NULL && ottla_batch_len(batch) == 2);
  ottla_batch_info info;
  OK(ottla_batch_describe(batch, &info, E));
  CHECK(strcmp(info.topic, "events") == 0 && info.topic_len == 6 && info.partition == 0);
  CHECK(info.record_count == 2 && info.next_offset == 2);
  ottla_record_view view;
  OK(ottla_batch_record(batch, 0, &view, E));
  CHECK(same(view.key, view.key_len, "k") && same(view.value, view.value_len, "hello"));
  CHECK(view.offset == 0 && view.header_count == 0 && view.timestamp_ms > 0);
  OK(ottla_batch_record(batch, 1, &view, E));
  CHECK(view.key == NULL && view.value == NULL && view.timestamp_ms == 77);
  CHECK(view.header_count == 2);
  ottla_header got[2];
  OK(ottla_batch_headers(batch, 1, got, 2, &count, E));
  CHECK(count == 2 && got[0].name_len == 5 && memcmp(got[0].name, "trace", 5) == 0);
  CHECK(same(got[0].value, got[0].value_len, "1") && got[1].value == NULL);
  got[1].name_len = 77;
  OK(ottla_batch_headers(batch, 1, got, 1, &count, E)); /* no more than there is room for */
  CHECK(count == 1 && got[0].name_len == 5 && got[1].name_len == 77);
  FAILS(OTTLA_STATUS_INVALID_ARGUMENT, ottla_batch_record(batch, 2, &view, E));
  FAILS(OTTLA_STATUS_INVALID_ARGUMENT, ottla_batch_headers(batch, 2, got, 2, &count, E));

  CHECK(info.arena_len == 1 + 5 + (4 + 5 + 4 + 1) + (4 + 4 + 4));
  uint8_t *arena = malloc(info.arena_len);
  ottla_record_index index[2];
  OK(ottla_batch_export(batch, arena, info.arena_len, index, 2, E));
  CHECK(same(arena + index[0].value_at, (size_t)index[0].value_len, "hello"));
  CHECK(index[1].key_len == -1 && index[1].value_len == -1 && index[1].header_count == 2);
  CHECK(arena[index[1].headers_at] == 5 && arena[index[1].headers_at + 4] == 't');
  /* Of the last header nothing but its null value. */
  CHECK(memcmp(arena + info.arena_len - 4, "\xff\xff\xff\xff", 4) == 0);
  FAILS(OTTLA_STATUS_INVALID_ARGUMENT,
        ottla_batch_export(batch, arena, info.arena_len - 1, index, 2, E));
  FAILS(OTTLA_STATUS_INVALID_ARGUMENT, ottla_batch_export(batch, arena, info.arena_len, index, 1, E));
  free(arena);
  ottla_batch_free(batch);

  OK(ottla_consumer_next(consumer, -1, &batch, E));
  OK(ottla_batch_record(batch, 0, &view, E));
  CHECK(view.value != NULL && view.value_len == 0);
  ottla_batch_free(batch);
  OK(ottla_consumer_next(consumer, 0, &batch, E));
  CHECK(batch == NULL);
  int64_t position = 0;
  OK(ottla_consumer_position(consumer, "events", 0, &position, E));
  CHECK(position == 2);
  OK(ottla_consumer_seek(consumer, "events", 0, OTTLA_START_OFFSET, 1, E));
  OK(ottla_consumer_next(consumer, -1, &batch, E));
  CHECK(ottla_batch_len(batch) == 1);

  /* Freed in any order; the batch outlives them all. */
  ottla_client_free(client);
  ottla_consumer_free(consumer);
  ottla_producer_free(producer);
  OK(ottla_batch_record(batch, 0, &view, E));
  CHECK(view.offset == 1);
  ottla_batch_free(batch);
}

/* Its handles are closed with the client, whether or not that was closed before. */
static void freed_with_handles_left(void) {
  ottla_client *client = NULL;
  OK(ottla_client_new_echo(&client, E));
  ottla_producer *producer = produce(client, NULL);
  ottla_consumer *consumer = consume(client, "t", 0);
  ottla_client_free(client);
  ottla_record record = {0};
  size_t accepted = 9;
  FAILS(OTTLA_STATUS_CLOSED,
        ottla_producer_send_batch(producer, "t", &record, 1, 1, &accepted, E));
  CHECK(accepted == 0);
  ottla_batch *batch = NULL;
  FAILS(OTTLA_STATUS_CLOSED, ottla_consumer_next(consumer, 0, &batch, E));
  ottla_producer_free(producer);
  ottla_consumer_free(consumer);
}

/* Each record has its own headers, whoever stands before it. */
static void headers_of_several_records(void) {
  enum { RECORDS = 4 };
  ottla_client *client = NULL;
  OK(ottla_client_new_echo(&client, E));
  ottla_producer *producer = produce(client, NULL);
  ottla_consumer *consumer = consume(client, "h", 0);
  static const char names[] = "0123456789";
  ottla_header headers[RECORDS * RECORDS] = {{0}};
  ottla_record records[RECORDS] = {{0}};
  size_t at = 0, accepted = 0, count = 0;
  for (size_t i = 0; i < RECORDS; i++) {
    records[i].headers = &headers[at];
    records[i].header_count = i; /* None, one, two, three. */
    for (size_t k = 0; k < i; k++, at++) {
      headers[at] = (ottla_header){.name = &names[at], .name_len = 1};
    }
  }
  OK(ottla_producer_send_batch(producer, "h", records, RECORDS, 1, &accepted, E));
  ottla_batch *batch = NULL;
  OK(ottla_consumer_next(consumer, -1, &batch, E));
  CHECK(ottla_batch_len(batch) == RECORDS);
  at = 0;
  for (size_t i = 0; i < RECORDS; i++) {
    ottla_header got[RECORDS];
    OK(ottla_batch_headers(batch, i, got, RECORDS, &count, E));
    CHECK(count == i);
    for (size_t k = 0; k < count; k++, at++) {
      CHECK(got[k].name_len == 1 && got[k].name[0] == names[at]);
    }
  }
  ottla_batch_free(batch);
  ottla_consumer_free(consumer);
  ottla_producer_free(producer);
  ottla_client_free(client);
}

static void packed(void) {
  ottla_client *client = NULL;
  OK(ottla_client_new_echo(&client, E));
  ottla_producer *producer = produce(client, NULL);
  static const uint8_t one[] = {
      0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
      0xff, 0xff, 0xff, 0xff, 1, 0, 0, 0, 'v'};
  size_t accepted = 9;
  OK(ottla_producer_send_packed(producer, "p", one, sizeof one, 1, 7, &accepted, E));
  CHECK(accepted == 1);
  FAILS(OTTLA_STATUS_INVALID_ARGUMENT,
        ottla_producer_send_packed(producer, "p", one, sizeof one - 1, 1, 7, &accepted, E));
  CHECK(accepted == 0);
  FAILS(OTTLA_STATUS_INVALID_ARGUMENT,
        ottla_producer_send_packed(producer, "p", one, sizeof one, 2, 7, &accepted, E));
  FAILS(OTTLA_STATUS_INVALID_ARGUMENT,
        ottla_producer_send_packed(producer, "p", NULL, 5, 1, 7, &accepted, E));
  FAILS(OTTLA_STATUS_INVALID_ARGUMENT,
        ottla_producer_send_packed(producer, "", one, sizeof one, 1, 7, &accepted, E));
  ottla_consumer *consumer = consume(client, "p", 0);
  ottla_batch *batch = NULL;
  OK(ottla_consumer_next(consumer, -1, &batch, E));
  ottla_record_view view;
  OK(ottla_batch_record(batch, 0, &view, E));
  CHECK(same(view.value, view.value_len, "v") && view.key == NULL);
  ottla_batch_free(batch);
  ottla_consumer_free(consumer);
  ottla_producer_free(producer);
  ottla_client_free(client);
}

/* How many records the completions of `tag` were about. */
static size_t told(ottla_client *client, uint64_t tag) {
  ottla_completion done[16];
  size_t count = 0, records = 0;
  OK(ottla_poll(client, done, 16, 0, &count, E));
  for (size_t i = 0; i < count; i++) {
    CHECK(done[i].kind == OTTLA_COMPLETION_DELIVERY && done[i].error == NULL);
    records += done[i].tag == tag ? done[i].count : 0;
  }
  return records;
}

/* Whatever a record is refused for, those before it are on their way and counted. */
static void accepted_is_the_number_before_the_refused_record(void) {
  ottla_client *client = NULL;
  OK(ottla_client_new_echo(&client, E));
  ottla_producer_options small = OTTLA_PRODUCER_OPTIONS_INIT;
  small.max_record_size = 4;
  ottla_producer *producer = produce(client, &small);
  ottla_header no_name = {.name = NULL, .name_len = 3};
  ottla_header no_text = {.name = "\xff", .name_len = 1};
  ottla_header good = {.name = "h", .name_len = 1};
  ottla_header null_value[] = {good, {.name = "h", .name_len = 1, .value_len = 2}};
  const ottla_record wrong[] = {
      {.value = (const uint8_t *)"12345", .value_len = 5}, /* too large */
      {.key_len = 1},
      {.value_len = 3},
      {.value_len = SIZE_MAX, .value = (const uint8_t *)""},
      {.header_count = 1},
      {.headers = &no_name, .header_count = 1},
      {.headers = &no_text, .header_count = 1},
      {.headers = null_value, .header_count = 2},
      {.flags = 8},
      {.partition = 3},
      {.timestamp_ms = 3},
      {.partition = -1, .flags = OTTLA_RECORD_PARTITION},
      {.timestamp_ms = -1, .flags = OTTLA_RECORD_TIMESTAMP},
  };
  const ottla_record plain = {.headers = &good, .header_count = 1};
  uint64_t tag = 100;
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
    for (size_t before = 0; before < 4; before++) {
      ottla_record records[6] = {plain, plain, plain, plain, plain, plain};
      records[before] = wrong[i];
      size_t accepted = 99;
      ottla_error *error = NULL;
      ottla_status status =
          ottla_producer_send_batch(producer, "t", records, 6, ++tag, &accepted, &error);
      CHECK(status == (i == 0 ? OTTLA_STATUS_RECORD_TOO_LARGE : OTTLA_STATUS_INVALID_ARGUMENT));
      CHECK(ottla_error_status(error) == status && !ottla_error_maybe_written(error));
      char record[16];
      snprintf(record, sizeof record, "record %zu: ", before);
      CHECK(i == 0 || strncmp(ottla_error_message(error), record, strlen(record)) == 0);
      ottla_error_free(error);
      CHECK(accepted == before);
      CHECK(told(client, tag) == before);
    }
  }
  /* What concerns the call and no record of it: nothing is sent. */
  size_t accepted = 99;
  FAILS(OTTLA_STATUS_INVALID_ARGUMENT,
        ottla_producer_send_batch(producer, NULL, &plain, 1, ++tag, &accepted, E));
  CHECK(accepted == 0 && told(client, tag) == 0);
  ottla_producer_free(producer);
  ottla_client_free(client);
}

static void options_and_records_are_checked(void) {
  ottla_client *client = NULL;
  OK(ottla_client_new_echo(&client, E));
  ottla_producer *producer = NULL;
  ottla_consumer *consumer = NULL;

  ottla_producer_options small = OTTLA_PRODUCER_OPTIONS_INIT;
  small.max_record_size = 4;
  producer = produce(client, &small);
  ottla_record records[2] = {{.value = (const uint8_t *)"1234", .value_len = 4},
                             {.value = (const uint8_t *)"12345", .value_len = 5}};
  size_t accepted = 0;
  FAILS(OTTLA_STATUS_RECORD_TOO_LARGE,
        ottla_producer_send_batch(producer, "t", records, 2, 1, &accepted, E));
  CHECK(accepted == 1);
  ottla_record no_flag = {.partition = 3};
  FAILS(OTTLA_STATUS_INVALID_ARGUMENT,
        ottla_producer_send_batch(producer, "t", &no_flag, 1, 1, &accepted, E));
  ottla_record null_value = {.value_len = 3};
  FAILS(OTTLA_STATUS_INVALID_ARGUMENT,
        ottla_producer_send_batch(producer, "t", &null_value, 1, 1, &accepted, E));
  FAILS(OTTLA_STATUS_INVALID_ARGUMENT,
        ottla_producer_send_batch(producer, "\xff", records, 1, 1, &accepted, E));
  OK(ottla_producer_send_batch(producer, "t", NULL, 0, 1, &accepted, E));
  ottla_producer_free(producer);

  ottla_producer_options no_size = {.linger_ms = 1};
  FAILS(OTTLA_STATUS_INVALID_ARGUMENT, ottla_producer_new(client, &no_size, &producer, E));
  CHECK(producer == NULL);
  ottla_consumer_options nothing = OTTLA_CONSUMER_OPTIONS_INIT;
  FAILS(OTTLA_STATUS_INVALID_ARGUMENT, ottla_consumer_new(client, &nothing, &consumer, E));
  ottla_assignment where = {.topic = "t", .partition = 0, .start = OTTLA_START_OFFSET};
  nothing.assignments = &where;
  nothing.assignment_count = 1;
  OK(ottla_consumer_new(client, &nothing, &consumer, E));
  ottla_batch *batch = NULL;
  OK(ottla_consumer_next(consumer, -1, &batch, E));
  CHECK(ottla_batch_len(batch) == 1);
  ottla_batch_free(batch);
  /* Below zero is nothing: neither the end nor the beginning. */
  for (int64_t below = -1; below > -4; below--) {
    ottla_consumer *refused = NULL;
    ottla_assignment at = {.topic = "t", .partition = 0, .start_value = below};
    nothing.assignments = &at;
    for (at.start = OTTLA_START_OFFSET; at.start <= OTTLA_START_TIMESTAMP; at.start++) {
      FAILS(OTTLA_STATUS_INVALID_ARGUMENT, ottla_consumer_new(client, &nothing, &refused, E));
      FAILS(OTTLA_STATUS_INVALID_ARGUMENT,
            ottla_consumer_seek(consumer, "t", 0, at.start, below, E));
    }
  }
  OK(ottla_consumer_close(consumer, E));
  FAILS(OTTLA_STATUS_CLOSED, ottla_consumer_seek(consumer, "t", 0, OTTLA_START_EARLIEST, 0, E));
  ottla_consumer_free(consumer);
  ottla_client_free(client);
}

static void null_handles(void) {
  size_t n = 0;
  int64_t offset = 0;
  ottla_completion completion;
  ottla_batch *batch = NULL;
  ottla_batch_info info;
  ottla_record_view view;
  ottla_record record = {0};
  ottla_client *client = NULL;
  ottla_producer *producer = NULL;
  ottla_consumer *consumer = NULL;
  ottla_client_options options = OTTLA_CLIENT_OPTIONS_INIT;
  const ottla_status invalid = OTTLA_STATUS_INVALID_ARGUMENT;

  FAILS(invalid, ottla_client_new(NULL, &client, E));
  FAILS(invalid, ottla_client_new(&options, &client, E)); /* no bootstrap */
  FAILS(invalid, ottla_client_new(&options, NULL, E));
  FAILS(invalid, ottla_client_connect(NULL, &client, E));
  FAILS(invalid, ottla_client_new_echo(NULL, E));
  FAILS(invalid, ottla_client_close(NULL, E));
  FAILS(invalid, ottla_poll(NULL, &completion, 1, 0, &n, E));
  FAILS(invalid, ottla_create_topic(NULL, "t", 1, 1, 1, E));
  FAILS(invalid, ottla_create_topic_wait(NULL, "t", 1, 1, 1, E));
  FAILS(invalid, ottla_producer_new(NULL, NULL, &producer, E));
  FAILS(invalid, ottla_producer_send_batch(NULL, "t", &record, 1, 1, &n, E));
  FAILS(invalid, ottla_producer_send_packed(NULL, "t", (const uint8_t *)"", 0, 0, 1, &n, E));
  FAILS(invalid, ottla_producer_flush(NULL, 1, E));
  FAILS(invalid, ottla_producer_flush_wait(NULL, 1, E));
  FAILS(invalid, ottla_producer_close(NULL, 1, 1, E));
  FAILS(invalid, ottla_producer_close_wait(NULL, 1, E));
  FAILS(invalid, ottla_consumer_new(NULL, NULL, &consumer, E));
  FAILS(invalid, ottla_consumer_try_next(NULL, &batch, E));
  FAILS(invalid, ottla_consumer_next(NULL, 0, &batch, E));
  FAILS(invalid, ottla_consumer_position(NULL, "t", 0, &offset, E));
  FAILS(invalid, ottla_consumer_seek(NULL, "t", 0, OTTLA_START_EARLIEST, 0, E));
  FAILS(invalid, ottla_consumer_close(NULL, E));
  FAILS(invalid, ottla_batch_describe(NULL, &info, E));
  FAILS(invalid, ottla_batch_record(NULL, 0, &view, E));
  FAILS(invalid, ottla_batch_headers(NULL, 0, NULL, 0, &n, E));
  FAILS(invalid, ottla_batch_export(NULL, NULL, 0, NULL, 0, E));
  /* Without an error object to fill, the status alone tells. */
  CHECK(ottla_client_new_echo(NULL, NULL) == invalid);

  OK(ottla_client_new_echo(&client, E));
  producer = produce(client, NULL);
  FAILS(invalid, ottla_poll(client, NULL, 1, 0, &n, E));
  FAILS(invalid, ottla_poll(client, &completion, 1, 0, NULL, E));
  FAILS(invalid, ottla_producer_send_batch(producer, NULL, &record, 1, 1, &n, E));
  FAILS(invalid, ottla_producer_send_batch(producer, "t", NULL, 1, 1, &n, E));
  FAILS(invalid, ottla_create_topic(client, NULL, 1, 1, 1, E));
  ottla_producer_free(producer);
  ottla_client_free(client);

  CHECK(ottla_client_fd(NULL) == -1);
  CHECK(ottla_batch_len(NULL) == 0);
  CHECK(ottla_error_status(NULL) == OTTLA_STATUS_OK);
  CHECK(ottla_error_message(NULL)[0] == 0 && ottla_error_advice(NULL)[0] == 0);
  CHECK(ottla_error_name(NULL)[0] == 0 && ottla_error_broker_code(NULL) == 0);
  CHECK(!ottla_error_is_retriable(NULL) && !ottla_error_is_fatal(NULL));
  CHECK(!ottla_error_maybe_written(NULL));
  ottla_client_free(NULL);
  ottla_producer_free(NULL);
  ottla_consumer_free(NULL);
  ottla_batch_free(NULL);
  ottla_error_free(NULL);
}

static void use_after_close(void) {
  ottla_client *client = NULL;
  OK(ottla_client_new_echo(&client, E));
  ottla_producer *producer = produce(client, NULL);
  ottla_producer *other = produce(client, NULL);
  ottla_consumer *consumer = consume(client, "t", 1);
  ottla_batch *batch = NULL;
  ottla_record record = {0};
  size_t n = 0;

  OK(ottla_producer_flush(producer, 10, E));
  OK(ottla_producer_close(producer, 1000, 11, E));
  OK(ottla_producer_close_wait(producer, 1000, E));
  FAILS(OTTLA_STATUS_CLOSED, ottla_producer_send_batch(producer, "t", &record, 1, 1, &n, E));
  FAILS(OTTLA_STATUS_CLOSED, ottla_producer_flush_wait(producer, 1000, E));
  OK(ottla_consumer_close(consumer, E));
  OK(ottla_consumer_close(consumer, E));
  FAILS(OTTLA_STATUS_CLOSED, ottla_consumer_try_next(consumer, &batch, E));
  FAILS(OTTLA_STATUS_CLOSED, ottla_consumer_next(consumer, -1, &batch, E));

  OK(ottla_client_close(client, E));
  OK(ottla_client_close(client, E));
  FAILS(OTTLA_STATUS_CLOSED, ottla_producer_send_batch(other, "t", &record, 1, 1, &n, E));
  FAILS(OTTLA_STATUS_CLOSED, ottla_create_topic_wait(client, "t", 1, 1, 1000, E));
  ottla_producer *late = NULL;
  FAILS(OTTLA_STATUS_CLOSED, ottla_producer_new(client, NULL, &late, E));
  CHECK(late == NULL);

  /* What was outstanding is found in the queue, then the queue ends. */
  ottla_completion done[8];
  OK(ottla_poll(client, done, 8, -1, &n, E));
  CHECK(n == 2 && done[0].tag == 10 && done[0].kind == OTTLA_COMPLETION_FLUSHED);
  CHECK(n == 2 && done[1].tag == 11 && done[1].kind == OTTLA_COMPLETION_CLOSED);
  FAILS(OTTLA_STATUS_CLOSED, ottla_poll(client, done, 8, -1, &n, E));
  ottla_client_free(client);
  ottla_producer_free(producer);
  ottla_producer_free(other);
  ottla_consumer_free(consumer);
}

static void error_objects(void) {
  ottla_client *client = NULL;
  OK(ottla_client_new_echo(&client, E));
  OK(ottla_create_topic_wait(client, "made", 1, 1, -1, E));
  ottla_error *error = NULL;
  CHECK(ottla_create_topic_wait(client, "made", 1, 1, -1, &error) == OTTLA_STATUS_TOPIC_EXISTS);
  CHECK(strcmp(ottla_error_name(error), "topic_exists") == 0);
  CHECK(strcmp(ottla_error_name(error), ottla_status_name(OTTLA_STATUS_TOPIC_EXISTS)) == 0);
  CHECK(strstr(ottla_error_message(error), "made") != NULL);
  CHECK(ottla_error_advice(error)[0] != 0);
  CHECK(!ottla_error_is_retriable(error) && !ottla_error_is_fatal(error));
  CHECK(!ottla_error_maybe_written(error));
  ottla_error_free(error);

  /* An error inside a completion is the receiver's. */
  OK(ottla_create_topic(client, "made", 1, 1, 3, E));
  ottla_completion done;
  size_t n = 0;
  OK(ottla_poll(client, &done, 1, -1, &n, E));
  CHECK(n == 1 && done.kind == OTTLA_COMPLETION_TOPIC_CREATED && done.tag == 3);
  CHECK(ottla_error_status(done.error) == OTTLA_STATUS_TOPIC_EXISTS);
  ottla_error_free(done.error);

  /* A success clears what was there. */
  error = (ottla_error *)&done;
  CHECK(ottla_client_close(client, &error) == OTTLA_STATUS_OK && error == NULL);
  ottla_client_free(client);
  CHECK(strcmp(ottla_status_name(-5), "unknown") == 0);
  CHECK(strchr(ottla_version(), '.') != NULL);
}

int main(void) {
  RUN(echo_round_trip());
  RUN(freed_with_handles_left());
  RUN(headers_of_several_records());
  RUN(packed());
  RUN(accepted_is_the_number_before_the_refused_record());
  RUN(options_and_records_are_checked());
  RUN(null_handles());
  RUN(use_after_close());
  RUN(error_objects());
  return summary();
}
