/* The interface against the embedded cluster. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <sys/wait.h>

#include "cluster.h"

static void record_errors(const char *bootstrap) {
  ottla_client *client = connect_to(bootstrap);
  ottla_producer *producer = NULL;
  OK(ottla_producer_new(client, NULL, &producer, E));
  size_t accepted = 0;
  size_t large = 2 << 20;
  uint8_t *bytes = calloc(1, large);
  ottla_record record = {.value = bytes, .value_len = large};
  FAILS(OTTLA_STATUS_RECORD_TOO_LARGE,
        ottla_producer_send_batch(producer, "t", &record, 1, 1, &accepted, E));
  CHECK(accepted == 0);

  /* Nobody knows the topic: accepted, and told afterwards. */
  record.value_len = 1;
  OK(ottla_producer_send_batch(producer, "no-such-topic", &record, 1, 2, &accepted, E));
  CHECK(accepted == 1);
  ottla_completion done = next_completion(client);
  CHECK(done.kind == OTTLA_COMPLETION_DELIVERY && done.tag == 2 && done.count == 1);
  CHECK(ottla_error_status(done.error) == OTTLA_STATUS_UNKNOWN_TOPIC);
  CHECK(strcmp(ottla_error_name(done.error), "unknown_topic") == 0);
  CHECK(strstr(ottla_error_message(done.error), "no-such-topic") != NULL);
  CHECK(ottla_error_advice(done.error)[0] != 0);
  CHECK(!ottla_error_maybe_written(done.error));
  ottla_error_free(done.error);

  ottla_consumer *consumer = consume(client, "no-such-topic", 1);
  ottla_batch *batch = NULL;
  FAILS(OTTLA_STATUS_UNKNOWN_TOPIC, ottla_consumer_next(consumer, PATIENCE_MS, &batch, E));
  ottla_consumer_free(consumer);

  record.partition = 77;
  record.flags = OTTLA_RECORD_PARTITION;
  ottla_status status = ottla_producer_send_batch(producer, "t", &record, 1, 3, &accepted, NULL);
  if (status == OTTLA_STATUS_OK) { /* the topic's partitions were not known yet */
    done = next_completion(client);
    status = ottla_error_status(done.error);
    ottla_error_free(done.error);
  }
  CHECK(status == OTTLA_STATUS_UNKNOWN_PARTITION);
  free(bytes);

  /* Use after close, with records on their way. */
  record.flags = 0;
  record.partition = 0;
  OK(ottla_producer_send_batch(producer, "t", &record, 0, 4, &accepted, E));
  OK(ottla_producer_close_wait(producer, PATIENCE_MS, E));
  FAILS(OTTLA_STATUS_CLOSED,
        ottla_producer_send_batch(producer, "t", &record, 0, 4, &accepted, E));
  FAILS(OTTLA_STATUS_CLOSED, ottla_producer_flush_wait(producer, -1, E));
  OK(ottla_client_close(client, E));
  FAILS(OTTLA_STATUS_CLOSED, ottla_create_topic_wait(client, "late", 1, 1, -1, E));
  size_t count = 0;
  FAILS(OTTLA_STATUS_CLOSED, ottla_poll(client, &done, 1, -1, &count, E));
  ottla_client_free(client);
  ottla_producer_free(producer);
}

/* What a flush or a close tells of records whose completions nobody has polled. */
static void expect_undelivered(ottla_status status, ottla_error *error, size_t records,
                               const char *expected) {
  CHECK(status == OTTLA_STATUS_UNDELIVERED && ottla_error_status(error) == status);
  CHECK(strcmp(ottla_error_name(error), "undelivered") == 0);
  CHECK(ottla_error_undelivered_records(error) == records);
  const ottla_error *first = ottla_error_undelivered_first(error);
  CHECK(ottla_error_status(first) == OTTLA_STATUS_TIMEOUT);
  CHECK(ottla_error_undelivered_records(first) == 0);
  CHECK(ottla_error_undelivered_first(first) == NULL);
  CHECK(ottla_error_undelivered_topic(first, 0) == NULL);
  const char *topic = ottla_error_undelivered_topic(error, 0);
  CHECK(topic != NULL && strcmp(topic, expected) == 0);
  CHECK(ottla_error_undelivered_topic(error, 1) == NULL);
  CHECK(strstr(ottla_error_message(error), expected) != NULL);
  ottla_error_free(error);
}

/* Failures that nobody polled are told by flush and close, each once; what was polled is not. Nobody copies
 * what is sent, and the records' time is over at once. */
static void failures_nobody_polled(void) {
  ottla_test_broker_options options = OTTLA_TEST_BROKER_OPTIONS_INIT;
  ottla_test_broker *broker = NULL;
  options.brokers = 2;
  OK(ottla_test_broker_new(&options, &broker, E));
  if (broker == NULL) {
    return;
  }
  OK(ottla_test_broker_create_topic(broker, "nowhere", 1, 2, E));
  OK(ottla_test_broker_set_replica_delay(broker, -1, E));
  ottla_client *client = connect_to(ottla_test_broker_bootstrap(broker));
  ottla_producer_options settings = OTTLA_PRODUCER_OPTIONS_INIT;
  settings.delivery_timeout_ms = 10;
  ottla_producer *producer = NULL;
  static const ottla_record records[3];
  size_t accepted = 0, count = 0;
  OK(ottla_producer_new(client, &settings, &producer, E));
  OK(ottla_producer_send_batch(producer, "nowhere", records, 3, 6, &accepted, E));
  CHECK(accepted == 3);
  ottla_error *error = NULL;
  ottla_status status = ottla_producer_flush_wait(producer, PATIENCE_MS, &error);
  expect_undelivered(status, error, 3, "nowhere");
  OK(ottla_producer_flush_wait(producer, PATIENCE_MS, E));
  /* The completions are there all the same. */
  uint32_t told = 0;
  ottla_completion done;
  while (told < 3) {
    OK(ottla_poll(client, &done, 1, PATIENCE_MS, &count, E));
    CHECK(count == 1 && done.kind == OTTLA_COMPLETION_DELIVERY && done.tag == 6);
    if (count == 0) {
      break;
    }
    told += done.count;
    ottla_error_free(done.error);
  }
  CHECK(told == 3);

  /* Polled, and not told again. */
  OK(ottla_producer_send_batch(producer, "nowhere", records, 1, 7, &accepted, E));
  done = next_completion(client);
  CHECK(done.tag == 7 && ottla_error_status(done.error) == OTTLA_STATUS_TIMEOUT);
  ottla_error_free(done.error);
  OK(ottla_producer_flush_wait(producer, PATIENCE_MS, E));

  OK(ottla_producer_send_batch(producer, "nowhere", records, 2, 8, &accepted, E));
  error = NULL;
  status = ottla_producer_close_wait(producer, PATIENCE_MS, &error);
  expect_undelivered(status, error, 2, "nowhere");
  OK(ottla_producer_close_wait(producer, PATIENCE_MS, E));
  ottla_producer_free(producer);
  ottla_client_free(client);
  ottla_test_broker_free(broker);
  CHECK(ottla_error_undelivered_records(NULL) == 0);
  CHECK(ottla_error_undelivered_first(NULL) == NULL);
  CHECK(ottla_error_undelivered_topic(NULL, 0) == NULL);
}

/* Each run that fails tells with which record it begins, as those that are written do. */
static void failed_runs_begin_where_they_do(const char *bootstrap) {
  enum { RECORDS = 4 };
  ottla_client *client = connect_to(bootstrap);
  ottla_producer *producer = NULL;
  OK(ottla_producer_new(client, NULL, &producer, E));
  ottla_record records[RECORDS] = {{0}};
  for (int i = 0; i < RECORDS; i++) {
    records[i].partition = i % 2;
    records[i].flags = OTTLA_RECORD_PARTITION;
  }
  size_t accepted = 0;
  OK(ottla_producer_send_batch(producer, "no-such-topic", records, RECORDS, 3, &accepted, E));
  CHECK(accepted == RECORDS);
  unsigned seen = 0;
  for (uint32_t told = 0; told < RECORDS;) {
    ottla_completion done = next_completion(client);
    CHECK(done.kind == OTTLA_COMPLETION_DELIVERY && done.tag == 3 && done.error != NULL);
    CHECK(done.count == 1 && done.first < RECORDS);
    if (done.count == 0) {
      break; /* nothing for a minute */
    }
    seen |= 1u << done.first;
    told += done.count;
    ottla_error_free(done.error);
  }
  CHECK(seen == (1u << RECORDS) - 1);
  ottla_producer_free(producer);
  ottla_client_free(client);
}

/* Records are accepted and the client is closed at once: each of them is told, one way or the
 * other. */
static void close_tells_everything(const char *bootstrap) {
  ottla_client *client = connect_to(bootstrap);
  ottla_producer *producer = NULL;
  OK(ottla_producer_new(client, NULL, &producer, E));
  ottla_record records[50] = {{0}};
  size_t accepted = 0, count = 0;
  OK(ottla_producer_send_batch(producer, "t", records, 50, 5, &accepted, E));
  OK(ottla_client_close(client, E));
  uint32_t told = 0;
  ottla_completion done;
  while (ottla_poll(client, &done, 1, -1, &count, NULL) == OTTLA_STATUS_OK) {
    CHECK(done.kind == OTTLA_COMPLETION_DELIVERY && done.tag == 5);
    told += done.count;
    ottla_error_free(done.error);
  }
  CHECK(told == accepted && accepted == 50);
  ottla_producer_free(producer);
  ottla_client_free(client);
}

/* The error of a change of clusters, which names the old one and the new one. Freed here. */
static void names_both(ottla_error *error, bool maybe_written) {
  CHECK(ottla_error_status(error) == OTTLA_STATUS_CLUSTER_CHANGED && ottla_error_is_fatal(error));
  CHECK(strstr(ottla_error_message(error), "first-cluster") != NULL);
  CHECK(strstr(ottla_error_message(error), "second-cluster") != NULL);
  CHECK(ottla_error_maybe_written(error) == maybe_written);
  ottla_error_free(error);
}

/* The next completion of a delivery; a consumer may have something to say before it. */
static ottla_completion next_delivery(ottla_client *client) {
  ottla_completion done;
  do {
    done = next_completion(client);
  } while (done.kind == OTTLA_COMPLETION_CONSUMER_READY);
  CHECK(done.kind == OTTLA_COMPLETION_DELIVERY);
  return done;
}

/* Another cluster comes to listen where the first one did. */
static void another_cluster(int32_t change) {
  enum { BROKERS = 2 };
  ottla_test_broker_options cluster = OTTLA_TEST_BROKER_OPTIONS_INIT;
  ottla_test_broker *broker = NULL;
  cluster.brokers = BROKERS;
  OK(ottla_test_broker_new(&cluster, &broker, E));
  if (broker == NULL) {
    return;
  }
  OK(ottla_test_broker_replace(broker, "first-cluster", E));
  FAILS(OTTLA_STATUS_INVALID_ARGUMENT, ottla_test_broker_replace(broker, NULL, E));
  FAILS(OTTLA_STATUS_INVALID_ARGUMENT, ottla_test_broker_replace(NULL, "no-cluster", E));
  OK(ottla_test_broker_create_topic(broker, "t", 1, BROKERS, E));
  ottla_client_options options = OTTLA_CLIENT_OPTIONS_INIT;
  ottla_client *client = NULL;
  ottla_producer *producer = NULL;
  options.bootstrap = ottla_test_broker_bootstrap(broker);
  options.on_cluster_change = change;
  OK(ottla_client_connect(&options, &client, E));
  OK(ottla_producer_new(client, NULL, &producer, E));
  ottla_consumer *consumer = consume(client, "t", 2);
  ottla_record record = {0};
  size_t accepted = 0;
  OK(ottla_producer_send_batch(producer, "t", &record, 1, 1, &accepted, E));
  ottla_completion done = next_delivery(client);
  CHECK(done.error == NULL && done.offset == 0);
  ottla_batch *batch = NULL;
  OK(ottla_consumer_next(consumer, PATIENCE_MS, &batch, E));
  CHECK(ottla_batch_len(batch) == 1);
  ottla_batch_free(batch);

  /* Written, and not acknowledged: nobody copies it. */
  OK(ottla_test_broker_set_replica_delay(broker, -1, E));
  OK(ottla_producer_send_batch(producer, "t", &record, 1, 3, &accepted, E));
  int64_t end = 0;
  for (int looks = 0; end < 2 && looks < PATIENCE_MS / 10; looks++) {
    poll(NULL, 0, 10);
    OK(ottla_test_broker_log_end(broker, "t", 0, &end, E));
  }
  CHECK(end == 2);
  for (int32_t id = 1; id <= BROKERS; id++) {
    OK(ottla_test_broker_stop_broker(broker, id, 0, E));
  }
  OK(ottla_test_broker_replace(broker, "second-cluster", E));
  OK(ottla_test_broker_create_topic(broker, "t", 1, BROKERS, E));
  OK(ottla_test_broker_set_replica_delay(broker, 0, E));
  for (int32_t id = 1; id <= BROKERS; id++) {
    OK(ottla_test_broker_start_broker(broker, id, E));
  }
  done = next_delivery(client);
  CHECK(done.tag == 3);
  names_both(done.error, true);

  ottla_error *error = NULL;
  ottla_status status = ottla_producer_send_batch(producer, "t", &record, 1, 4, &accepted, &error);
  int64_t offset = -1;
  if (status == OTTLA_STATUS_OK) {
    done = next_delivery(client);
    CHECK(done.tag == 4);
    error = done.error;
    offset = done.offset;
  }
  if (change == OTTLA_CLUSTER_CHANGE_ACCEPT) {
    CHECK(error == NULL && offset == 0);
    ottla_error_free(error);
    OK(ottla_consumer_next(consumer, PATIENCE_MS, &batch, E));
    CHECK(ottla_batch_len(batch) == 1);
    ottla_batch_free(batch);
  } else {
    names_both(error, false);
    error = NULL;
    CHECK(ottla_consumer_next(consumer, PATIENCE_MS, &batch, &error) != OTTLA_STATUS_OK);
    names_both(error, false);
    error = NULL;
    CHECK(ottla_create_topic_wait(client, "u", 1, 1, -1, &error) != OTTLA_STATUS_OK);
    names_both(error, false);
    OK(ottla_test_broker_log_end(broker, "t", 0, &end, E));
    CHECK(end == 0);
  }
  ottla_consumer_free(consumer);
  ottla_producer_free(producer);
  ottla_client_free(client);
  ottla_test_broker_free(broker);
}

/* The statistics as text, "" if there are none. Freed by the caller. */
static char *stats_of(ottla_client *client) {
  char *json = NULL;
  OK(ottla_client_stats_json(client, &json, E));
  return json;
}

static void statistics(const char *bootstrap) {
  ottla_client_options options = OTTLA_CLIENT_OPTIONS_INIT;
  ottla_client *client = NULL;
  options.bootstrap = bootstrap;
  /* Its connections are its own: what clients of before have on its way is not counted here. */
  options.software_name = "statistics";
  OK(ottla_client_connect(&options, &client, E));
  ottla_producer *producer = NULL;
  size_t accepted = 0;
  ottla_record record = {0};
  OK(ottla_producer_new(client, NULL, &producer, E));
  OK(ottla_producer_send_batch(producer, "t", &record, 1, 1, &accepted, E));
  OK(ottla_producer_flush_wait(producer, PATIENCE_MS, E));
  char *json = stats_of(client);
  CHECK(json[0] == '{' && json[strlen(json) - 1] == '}');
  CHECK(strstr(json, "\"bad_stuff\":{\"retries\":") != NULL);
  CHECK(strstr(json, "\"records_acknowledged\":1,") != NULL);
  CHECK(strstr(json, "\"Produce\":{\"sent\":") != NULL);
  ottla_string_free(json);
  ottla_string_free(NULL);
  FAILS(OTTLA_STATUS_INVALID_ARGUMENT, ottla_client_stats_json(client, NULL, E));
  FAILS(OTTLA_STATUS_INVALID_ARGUMENT, ottla_client_stats_json(NULL, &json, E));
  ottla_producer_free(producer);
  OK(ottla_client_close(client, E));
  json = (char *)bootstrap;
  FAILS(OTTLA_STATUS_CLOSED, ottla_client_stats_json(client, &json, E));
  CHECK(json == NULL);
  ottla_client_free(client);
}

/* Batches that are kept leave the consumer no memory: what it fetches then is little, unless they are detached. */
static uint64_t fetches_of_who_keeps(const char *bootstrap, const char *topic, size_t records, bool detaches) {
  enum { KEPT = 4096 };
  static ottla_batch *kept[KEPT];
  ottla_client_options client_options = OTTLA_CLIENT_OPTIONS_INIT;
  ottla_consumer_options options = OTTLA_CONSUMER_OPTIONS_INIT;
  ottla_client *client = NULL;
  ottla_consumer *consumer = NULL;
  client_options.bootstrap = bootstrap;
  client_options.software_name = detaches ? "detaches" : "keeps";
  OK(ottla_client_connect(&client_options, &client, E));
  options.topics = &topic;
  options.topic_count = 1;
  options.buffer_memory = 8 << 20;
  OK(ottla_consumer_new(client, &options, &consumer, E));
  size_t count = 0, read = 0, whole = 0;
  while (read < records && count < KEPT) {
    ottla_batch *batch = NULL, *copy = NULL;
    OK(ottla_consumer_next(consumer, PATIENCE_MS, &batch, E));
    if (batch == NULL) {
      break;
    }
    if (detaches) {
      OK(ottla_batch_detach(batch, &copy, E));
      ottla_batch_free(batch);
      batch = copy;
    }
    read += ottla_batch_len(batch);
    kept[count++] = batch;
  }
  CHECK(read == records);
  ottla_consumer_free(consumer);
  for (size_t i = 0; i < count; i++) {
    for (size_t at = 0; at < ottla_batch_len(kept[i]); at++) {
      ottla_record_view view;
      OK(ottla_batch_record(kept[i], at, &view, E));
      whole += view.value_len == 10000 && view.value[0] == 7 && view.value[9999] == 7;
    }
    ottla_batch_free(kept[i]);
  }
  CHECK(whole == records);
  char *json = stats_of(client);
  const char *found = strstr(json, "\"fetch_requests\":");
  uint64_t fetches = found == NULL ? 0 : strtoull(found + strlen("\"fetch_requests\":"), NULL, 10);
  CHECK(fetches > 0);
  ottla_string_free(json);
  ottla_client_free(client);
  return fetches;
}

static void what_is_detached_leaves_the_consumer_its_memory(ottla_test_broker *broker) {
  /* Small ones: who has no memory left is given one of them at a time, and who has it ten or more. */
  enum { BATCHES = 400, EACH = 10 };
  static uint8_t value[10000];
  const char *bootstrap = ottla_test_broker_bootstrap(broker);
  OK(ottla_test_broker_create_topic(broker, "kept", 1, 1, E));
  ottla_client *client = connect_to(bootstrap);
  ottla_producer_options options = OTTLA_PRODUCER_OPTIONS_INIT;
  ottla_producer *producer = NULL;
  ottla_record records[EACH] = {{0}};
  memset(value, 7, sizeof value);
  for (int i = 0; i < EACH; i++) {
    records[i].value = value;
    records[i].value_len = sizeof value;
  }
  options.batch_size = 2 << 20;
  options.compression = OTTLA_COMPRESSION_NONE;
  OK(ottla_producer_new(client, &options, &producer, E));
  for (int i = 0; i < BATCHES; i++) {
    size_t accepted = 0;
    OK(ottla_producer_send_batch(producer, "kept", records, EACH, 1, &accepted, E));
    CHECK(accepted == EACH);
    OK(ottla_producer_flush_wait(producer, PATIENCE_MS, E));
  }
  ottla_producer_free(producer);
  ottla_client_free(client);
  uint64_t kept = fetches_of_who_keeps(bootstrap, "kept", BATCHES * EACH, false);
  uint64_t detached = fetches_of_who_keeps(bootstrap, "kept", BATCHES * EACH, true);
  CHECK(2 * detached < kept);
  ottla_batch *none = NULL;
  FAILS(OTTLA_STATUS_INVALID_ARGUMENT, ottla_batch_detach(NULL, &none, E));
}

/* What the library has to say, for a program's own log: a thread takes line after line. */
static void log_lines(void) {
  ottla_logs *logs = NULL;
  FAILS(OTTLA_STATUS_INVALID_ARGUMENT, ottla_logs_open(6, &logs, E));
  FAILS(OTTLA_STATUS_INVALID_ARGUMENT, ottla_logs_open(OTTLA_LOG_INFO, NULL, E));
  CHECK(logs == NULL && ottla_logs_fd(NULL) == -1 && ottla_logs_dropped(NULL) == 0);
  OK(ottla_logs_open(OTTLA_LOG_DEFAULT, &logs, E));
  if (logs == NULL) {
    return;
  }
  char bootstrap[32];
  int closed = local_socket(bootstrap); /* bound, and nobody listens */
  expect_no_client(bootstrap, OTTLA_STATUS_CONNECT);
  close(closed);

  int told = 0;
  struct pollfd fd = {.fd = ottla_logs_fd(logs), .events = POLLIN};
  while (!told) {
    ottla_log *log = NULL;
    CHECK(poll(&fd, 1, PATIENCE_MS) == 1);
    OK(ottla_logs_next(logs, PATIENCE_MS, &log, E));
    if (log == NULL) {
      break;
    }
    ottla_log_info info;
    OK(ottla_log_describe(log, &info, E));
    CHECK(info.level >= OTTLA_LOG_ERROR && info.level <= OTTLA_LOG_WARN && info.dropped == 0);
    CHECK(strncmp(info.target, "ottla::", 7) == 0 && info.message[0] != 0);
    CHECK(info.time_ns / 1000000000 <= time(NULL) && info.time_ns / 1000000000 > 1700000000);
    ottla_log_field fields[16];
    size_t count = 0;
    OK(ottla_log_fields(log, fields, 0, &count, E));
    CHECK(count == 0 && info.field_count > 0 && info.field_count <= 16);
    OK(ottla_log_fields(log, fields, 1, &count, E));
    CHECK(count == 1);
    OK(ottla_log_fields(log, fields, 16, &count, E));
    CHECK(count == info.field_count);
    for (size_t i = 0; i < count; i++) {
      told |= strcmp(fields[i].name, "error") == 0 && strstr(fields[i].value, bootstrap) != NULL;
    }
    ottla_log_free(log);
  }
  CHECK(told);
  CHECK(ottla_logs_dropped(logs) == 0);

  pid_t child = fork();
  if (child == 0) {
    ottla_log *log = NULL;
    _exit(ottla_logs_next(logs, PATIENCE_MS, &log, NULL) == OTTLA_STATUS_FORKED ? 0 : 1);
  }
  int status = -1;
  CHECK(waitpid(child, &status, 0) == child && status == 0);

  OK(ottla_logs_close(logs, E));
  OK(ottla_logs_close(logs, E));
  ottla_log *log = NULL;
  while (ottla_logs_next(logs, 0, &log, NULL) == OTTLA_STATUS_OK) {
    ottla_log_free(log);
  }
  FAILS(OTTLA_STATUS_CLOSED, ottla_logs_next(logs, -1, &log, E));
  FAILS(OTTLA_STATUS_INVALID_ARGUMENT, ottla_logs_next(NULL, 0, &log, E));
  FAILS(OTTLA_STATUS_INVALID_ARGUMENT, ottla_log_describe(NULL, NULL, E));
  ottla_logs_free(logs);
  ottla_logs_free(NULL);
  ottla_log_free(NULL);
}

int main(void) {
  ottla_test_broker *broker = NULL;
  ottla_test_broker_options options = OTTLA_TEST_BROKER_OPTIONS_INIT;
  options.brokers = -1;
  FAILS(OTTLA_STATUS_INVALID_ARGUMENT, ottla_test_broker_new(&options, &broker, E));
  options.brokers = 2;
  OK(ottla_test_broker_new(&options, &broker, E));
  if (broker == NULL) {
    return summary();
  }
  OK(ottla_test_broker_create_topic(broker, "t", 2, 1, E));
  FAILS(OTTLA_STATUS_INVALID_ARGUMENT, ottla_test_broker_create_topic(broker, "t", 2, 1, E));
  FAILS(OTTLA_STATUS_INVALID_ARGUMENT, ottla_test_broker_create_topic(NULL, "t", 2, 1, E));
  CHECK(ottla_test_broker_bootstrap(NULL)[0] == 0);
  const char *bootstrap = ottla_test_broker_bootstrap(broker);
  for (int32_t codec = OTTLA_COMPRESSION_NONE; codec <= OTTLA_COMPRESSION_ZSTD; codec++) {
    RUN(round_trip(bootstrap, codec));
  }
  RUN(record_errors(bootstrap));
  RUN(failures_nobody_polled());
  RUN(failed_runs_begin_where_they_do(bootstrap));
  RUN(close_tells_everything(bootstrap));
  RUN(statistics(bootstrap));
  RUN(what_is_detached_leaves_the_consumer_its_memory(broker));
  ottla_test_broker_free(broker);
  ottla_test_broker_free(NULL);
  RUN(another_cluster(OTTLA_CLUSTER_CHANGE_FAIL));
  RUN(another_cluster(OTTLA_CLUSTER_CHANGE_ACCEPT));
  RUN(log_lines());
  return summary();
}
