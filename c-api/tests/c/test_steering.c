/* A consumer that is asked and steered, while another thread reads too; and offsets that are looked up. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <pthread.h>

#include "cluster.h"

/* So many records, one after the other, into a partition of "t". */
static void write_to(ottla_client *client, int32_t partition, int records) {
  ottla_producer *producer = NULL;
  OK(ottla_producer_new(client, NULL, &producer, E));
  for (int i = 0; i < records; i++) {
    ottla_record record = {.partition = partition, .flags = OTTLA_RECORD_PARTITION};
    size_t accepted = 0;
    OK(ottla_producer_send_batch(producer, "t", &record, 1, 1, &accepted, E));
    CHECK(accepted == 1);
    OK(ottla_producer_flush_wait(producer, PATIENCE_MS, E));
  }
  ottla_producer_free(producer);
}

/* A consumer of one partition of "t", from an offset on. */
static ottla_consumer *reader_of(ottla_client *client, int32_t partition, int64_t offset) {
  ottla_assignment of = {.topic = "t", .partition = partition};
  ottla_consumer_options options = OTTLA_CONSUMER_OPTIONS_INIT;
  ottla_consumer *consumer = NULL;
  of.start = OTTLA_START_OFFSET;
  of.start_value = offset;
  options.assignments = &of;
  options.assignment_count = 1;
  OK(ottla_consumer_new(client, &options, &consumer, E));
  return consumer;
}

/* The next batch; its partition and first offset. */
static ottla_batch *next_is(ottla_consumer *consumer, int32_t partition, int64_t offset) {
  ottla_batch *batch = NULL;
  ottla_batch_info info;
  ottla_record_view view;
  OK(ottla_consumer_next(consumer, PATIENCE_MS, &batch, E));
  CHECK(batch != NULL);
  if (batch != NULL) {
    OK(ottla_batch_describe(batch, &info, E));
    OK(ottla_batch_record(batch, 0, &view, E));
    CHECK(info.partition == partition && view.offset == offset);
  }
  return batch;
}

static int64_t position_of(const ottla_consumer *consumer, int32_t partition) {
  int64_t position = -2;
  OK(ottla_consumer_position(consumer, "t", partition, &position, E));
  return position;
}

static int64_t lag_of(const ottla_consumer *consumer, int32_t partition) {
  int64_t lag = -2;
  OK(ottla_consumer_lag(consumer, "t", partition, &lag, E));
  return lag;
}

/* Whether a list is this one partition of "t". Frees it. */
static bool is_just(ottla_partitions *list, int32_t partition) {
  ottla_partition at = {0};
  bool is = ottla_partitions_len(list) == 1;
  OK(ottla_partitions_at(list, 0, &at, E));
  is = is && strcmp(at.topic, "t") == 0 && at.partition == partition;
  FAILS(OTTLA_STATUS_INVALID_ARGUMENT, ottla_partitions_at(list, 1, &at, E));
  ottla_partitions_free(list);
  return is;
}

static void steering(ottla_client *client) {
  const ottla_partition first = {.topic = "t", .partition = 0};
  const ottla_partition both[2] = {first, {.topic = "t", .partition = 1}};
  write_to(client, 0, 3);
  write_to(client, 1, 1);
  ottla_consumer *consumer = reader_of(client, 0, 1);
  /* Where reading begins. */
  CHECK(position_of(consumer, 0) == 1 && position_of(consumer, 1) == -1);
  CHECK(lag_of(consumer, 1) == -1);
  ottla_batch *batch = next_is(consumer, 0, 1);
  CHECK(position_of(consumer, 0) == 2);
  ottla_wanted *wanted = NULL;
  OK(ottla_batch_wanted(batch, &wanted, E));
  CHECK(ottla_batch_standing(batch) == OTTLA_STANDING_CURRENT);

  /* Paused, it hands out nothing, and another is read beside it. */
  OK(ottla_consumer_pause(consumer, &first, 1, E));
  CHECK(ottla_batch_standing(batch) == OTTLA_STANDING_PAUSED);
  CHECK(ottla_wanted_standing(wanted) == OTTLA_STANDING_PAUSED);
  FAILS(OTTLA_STATUS_UNKNOWN_PARTITION, ottla_consumer_resume(consumer, both, 2, E));
  ottla_partitions *list = NULL;
  OK(ottla_consumer_paused(consumer, &list, E));
  CHECK(is_just(list, 0));
  ottla_assignment more = {.topic = "t", .partition = 1};
  OK(ottla_consumer_assign(consumer, &more, 1, E));
  ottla_batch_free(next_is(consumer, 1, 0));
  ottla_batch *none = NULL;
  OK(ottla_consumer_try_next(consumer, &none, E));
  CHECK(none == NULL);

  /* Resumed, it goes on where it was. */
  OK(ottla_consumer_resume(consumer, &first, 1, E));
  CHECK(ottla_wanted_standing(wanted) == OTTLA_STANDING_CURRENT);
  ottla_batch_free(next_is(consumer, 0, 2));
  CHECK(lag_of(consumer, 0) == 0);

  /* A seek while it is paused counts when it is resumed. */
  OK(ottla_consumer_pause(consumer, &first, 1, E));
  OK(ottla_consumer_seek(consumer, "t", 0, OTTLA_START_OFFSET, 2, E));
  CHECK(ottla_batch_standing(batch) == OTTLA_STANDING_LEFT);
  ottla_batch_free(batch);
  CHECK(ottla_wanted_standing(wanted) == OTTLA_STANDING_LEFT);
  ottla_wanted_free(wanted);
  OK(ottla_consumer_resume(consumer, &first, 1, E));
  ottla_batch_free(next_is(consumer, 0, 2));

  /* What is left is not read. */
  OK(ottla_consumer_unassign(consumer, &both[1], 1, E));
  OK(ottla_consumer_assignment(consumer, &list, E));
  CHECK(is_just(list, 0));
  write_to(client, 1, 1);
  write_to(client, 0, 1);
  ottla_batch_free(next_is(consumer, 0, 3));
  ottla_consumer_free(consumer);
}

/* Offsets by their place, and reading up to an end. */
static void up_to_an_end(ottla_client *client) {
  ottla_assignment wanted[4] = {
      {.topic = "t", .partition = 1, .start = OTTLA_START_LATEST},
      {.topic = "t", .partition = 0, .start = OTTLA_START_EARLIEST},
      {.topic = "t", .partition = 77, .start = OTTLA_START_LATEST},
      {.topic = "t", .partition = 1, .start = OTTLA_START_TIMESTAMP, .start_value = 1},
  };
  ottla_offsets *offsets = NULL;
  int64_t end = -2, at = -2;
  OK(ottla_list_offsets_wait(client, wanted, 4, PATIENCE_MS, &offsets, E));
  CHECK(ottla_offsets_len(offsets) == 4);
  OK(ottla_offsets_at(offsets, 0, &end, E));
  CHECK(end == 2);
  OK(ottla_offsets_at(offsets, 1, &at, E));
  CHECK(at == 0);
  FAILS(OTTLA_STATUS_UNKNOWN_PARTITION, ottla_offsets_at(offsets, 2, &at, E));
  OK(ottla_offsets_at(offsets, 3, &at, E));
  CHECK(at == 0);
  FAILS(OTTLA_STATUS_INVALID_ARGUMENT, ottla_offsets_at(offsets, 4, &at, E));
  ottla_offsets_free(offsets);
  wanted[1].start = OTTLA_START_OFFSET;
  FAILS(OTTLA_STATUS_INVALID_ARGUMENT,
        ottla_list_offsets_wait(client, wanted, 2, PATIENCE_MS, &offsets, E));

  ottla_consumer *consumer = reader_of(client, 1, 0);
  ottla_partition_offset ends = {.topic = "t", .offset = end, .partition = 1};
  ottla_batch *batch = NULL;
  bool reached = false;
  size_t records = 0;
  for (;;) {
    OK(ottla_consumer_next_until(consumer, &ends, 1, PATIENCE_MS, &batch, &reached, E));
    if (batch == NULL) {
      break;
    }
    CHECK(!reached);
    records += ottla_batch_len(batch);
    ottla_batch_free(batch);
  }
  CHECK(reached && records == 2);
  ends.offset++;
  OK(ottla_consumer_next_until(consumer, &ends, 1, 0, &batch, &reached, E));
  CHECK(batch == NULL && !reached);
  OK(ottla_consumer_try_next_until(consumer, &ends, 1, &batch, &reached, E));
  CHECK(batch == NULL && !reached);
  ottla_consumer_free(consumer);
}

/* A lookup in an event loop. */
static void offsets_are_told(const char *bootstrap) {
  ottla_client *client = connect_to(bootstrap);
  ottla_assignment wanted = {.topic = "t", .partition = 0, .start = OTTLA_START_LATEST};
  ottla_offsets *offsets = NULL;
  int64_t end = -2;
  ottla_completion done = {0};
  size_t count = 0;
  OK(ottla_list_offsets(client, &wanted, 1, 9, &offsets, E));
  do {
    ottla_error_free(done.error);
    OK(ottla_poll(client, &done, 1, PATIENCE_MS, &count, E));
  } while (count == 1 && done.kind != OTTLA_COMPLETION_OFFSETS_LISTED);
  CHECK(done.kind == OTTLA_COMPLETION_OFFSETS_LISTED && done.tag == 9 && done.error == NULL);
  OK(ottla_offsets_at(offsets, 0, &end, E));
  CHECK(end == 4);
  ottla_client_free(client);
  /* It depends on no other handle. */
  CHECK(ottla_offsets_len(offsets) == 1);
  ottla_offsets_free(offsets);
}

static void *reads(void *consumer) {
  ottla_batch *batch = NULL;
  ottla_status status;
  for (;;) {
    status = ottla_consumer_next(consumer, -1, &batch, NULL);
    if (status != OTTLA_STATUS_OK) {
      return status == OTTLA_STATUS_CLOSED ? consumer : NULL;
    }
    ottla_batch_free(batch);
  }
}

/* Nothing here waits for the thread that waits for records; the limit of the test would tell. */
static void steered_beside_a_reader(ottla_client *client) {
  const ottla_partition first = {.topic = "t", .partition = 0};
  ottla_consumer *consumer = reader_of(client, 0, 4);
  pthread_t thread;
  CHECK(pthread_create(&thread, NULL, reads, consumer) == 0);
  for (int i = 0; i < 100; i++) {
    OK(ottla_consumer_pause(consumer, &first, 1, E));
    OK(ottla_consumer_seek(consumer, "t", 0, OTTLA_START_OFFSET, 4, E));
    CHECK(position_of(consumer, 0) == 4);
    (void)lag_of(consumer, 0);
    OK(ottla_consumer_resume(consumer, &first, 1, E));
  }
  OK(ottla_consumer_close(consumer, E));
  void *end = NULL;
  CHECK(pthread_join(thread, &end) == 0 && end == consumer);
  FAILS(OTTLA_STATUS_CLOSED, ottla_consumer_pause(consumer, &first, 1, E));
  CHECK(position_of(consumer, 0) == -1);
  ottla_consumer_free(consumer);
}

static void nothing_is_refused(void) {
  const ottla_status invalid = OTTLA_STATUS_INVALID_ARGUMENT;
  ottla_client *client = NULL;
  OK(ottla_client_new_echo(&client, E));
  ottla_consumer *consumer = reader_of(client, 0, 0);
  ottla_partitions *list = NULL;
  ottla_partition at = {0};
  ottla_offsets *offsets = NULL;
  ottla_wanted *wanted = NULL;
  ottla_batch *batch = NULL;
  bool reached = false;
  int64_t n = 0;
  FAILS(invalid, ottla_consumer_pause(NULL, &at, 1, E));
  FAILS(invalid, ottla_consumer_pause(consumer, NULL, 1, E));
  FAILS(invalid, ottla_consumer_pause(consumer, &at, 1, E)); /* without a topic */
  FAILS(invalid, ottla_consumer_resume(consumer, &at, 1, E));
  FAILS(invalid, ottla_consumer_unassign(consumer, &at, 1, E));
  FAILS(invalid, ottla_consumer_assign(consumer, NULL, 1, E));
  FAILS(invalid, ottla_consumer_paused(consumer, NULL, E));
  FAILS(invalid, ottla_consumer_assignment(NULL, &list, E));
  FAILS(invalid, ottla_consumer_lag(consumer, NULL, 0, &n, E));
  FAILS(invalid, ottla_consumer_lag(consumer, "t", 0, NULL, E));
  FAILS(invalid, ottla_consumer_next_until(consumer, NULL, 1, 0, &batch, &reached, E));
  FAILS(invalid, ottla_consumer_try_next_until(consumer, NULL, 0, &batch, NULL, E));
  FAILS(invalid, ottla_list_offsets(NULL, NULL, 0, 1, &offsets, E));
  FAILS(invalid, ottla_list_offsets(client, NULL, 0, 1, NULL, E));
  FAILS(invalid, ottla_list_offsets_wait(client, NULL, 1, 1, &offsets, E));
  FAILS(invalid, ottla_offsets_at(NULL, 0, &n, E));
  FAILS(invalid, ottla_partitions_at(NULL, 0, &at, E));
  FAILS(invalid, ottla_batch_wanted(NULL, &wanted, E));
  CHECK(ottla_batch_standing(NULL) == OTTLA_STANDING_LEFT);
  CHECK(ottla_wanted_standing(NULL) == OTTLA_STANDING_LEFT);
  CHECK(ottla_offsets_len(NULL) == 0 && ottla_partitions_len(NULL) == 0);
  /* None of them is no error. */
  OK(ottla_consumer_pause(consumer, NULL, 0, E));
  ottla_offsets_free(NULL);
  ottla_partitions_free(NULL);
  ottla_wanted_free(NULL);
  ottla_consumer_free(consumer);
  ottla_client_free(client);
}

int main(void) {
  ottla_test_broker *broker = NULL;
  ottla_test_broker_options options = OTTLA_TEST_BROKER_OPTIONS_INIT;
  options.brokers = 2;
  OK(ottla_test_broker_new(&options, &broker, E));
  if (broker == NULL) {
    return summary();
  }
  OK(ottla_test_broker_create_topic(broker, "t", 2, 1, E));
  const char *bootstrap = ottla_test_broker_bootstrap(broker);
  ottla_client *client = connect_to(bootstrap);
  RUN(steering(client));
  RUN(up_to_an_end(client));
  RUN(offsets_are_told(bootstrap));
  RUN(steered_beside_a_reader(client));
  ottla_client_free(client);
  ottla_test_broker_free(broker);
  RUN(nothing_is_refused());
  return summary();
}
