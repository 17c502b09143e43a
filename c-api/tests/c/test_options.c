/* Each setting arrives under its own name and in its own unit: what is at the edge of its range is taken, what
 * is beyond is refused by that name. Then what only an effect can show. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <arpa/inet.h>
#include <pthread.h>
#include <stddef.h>
#include <sys/socket.h>

#include "cluster.h"

static ottla_test_broker *start(int32_t brokers) {
  ottla_test_broker_options options = OTTLA_TEST_BROKER_OPTIONS_INIT;
  ottla_test_broker *broker = NULL;
  options.brokers = brokers;
  OK(ottla_test_broker_new(&options, &broker, E));
  if (broker == NULL) {
    exit(summary());
  }
  return broker;
}

static ottla_producer *produce(ottla_client *client, const ottla_producer_options *options) {
  ottla_producer *producer = NULL;
  OK(ottla_producer_new(client, options, &producer, E));
  return producer;
}

static void send_one(ottla_producer *producer, const ottla_record *record) {
  size_t accepted = 0;
  OK(ottla_producer_send_batch(producer, "t", record, 1, 1, &accepted, E));
  CHECK(accepted == 1);
}

/* A setting, two values that are taken (0: no second one) and two that are not. All are 8 bytes long. */
typedef struct {
  const char *name;
  size_t at;
  int64_t taken[2], refused[2];
} range;

#define SETTING(type, member, name) name, offsetof(type, member)

/* Refused with the setting's name before all else. */
static void named(ottla_status status, ottla_error *error, const range *r, int64_t value) {
  char begin[64];
  snprintf(begin, sizeof begin, "%s is ", r->name);
  bool said = strncmp(ottla_error_message(error), begin, strlen(begin)) == 0;
  CHECK(status == OTTLA_STATUS_CONFIG && said);
  if (!said) {
    fprintf(stderr, "%s of %lld: %s\n", r->name, (long long)value, ottla_error_message(error));
  }
  ottla_error_free(error);
}

static void settings_of_a_client(ottla_test_broker *broker) {
  static const range ranges[] = {
      /* Below zero is zero, which is no time to connect in. */
      {SETTING(ottla_client_options, connect_timeout_ms, "connect_timeout"), {1, 3600000}, {-1, 3600001}},
      {SETTING(ottla_client_options, request_timeout_ms, "request_timeout"), {100, 3600000}, {99, 3600001}},
      {SETTING(ottla_client_options, idle_timeout_ms, "idle_timeout"), {1000, 86400000}, {999, 86400001}},
  };
  for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++) {
    for (int k = 0; k < 2; k++) {
      ottla_client_options options = OTTLA_CLIENT_OPTIONS_INIT;
      ottla_client *client = NULL;
      ottla_error *error = NULL;
      options.bootstrap = ottla_test_broker_bootstrap(broker);
      memcpy((char *)&options + ranges[i].at, &ranges[i].taken[k], 8);
      OK(ottla_client_new(&options, &client, E));
      ottla_client_free(client);
      memcpy((char *)&options + ranges[i].at, &ranges[i].refused[k], 8);
      ottla_status status = ottla_client_new(&options, &client, &error);
      named(status, error, &ranges[i], ranges[i].refused[k]);
      CHECK(client == NULL);
    }
  }
  ottla_client_options options = OTTLA_CLIENT_OPTIONS_INIT;
  ottla_client *client = NULL;
  options.bootstrap = ottla_test_broker_bootstrap(broker);
  for (options.on_cluster_change = 3; options.on_cluster_change > -3; options.on_cluster_change -= 4) {
    FAILS(OTTLA_STATUS_INVALID_ARGUMENT, ottla_client_new(&options, &client, E));
  }
  /* A newer program's setting that this library does not know, and one that it left alone. */
  struct {
    ottla_client_options known;
    uint64_t newer;
  } larger = {OTTLA_CLIENT_OPTIONS_INIT, 1};
  larger.known.size = sizeof larger;
  larger.known.bootstrap = options.bootstrap;
  FAILS(OTTLA_STATUS_INVALID_ARGUMENT, ottla_client_new(&larger.known, &client, E));
  larger.newer = 0;
  OK(ottla_client_new(&larger.known, &client, E));
  ottla_client_free(client);
}

/* A member that means nothing yet: a newer program may say something in it that this library does not know. */
static void reserved_members(ottla_test_broker *broker, ottla_client *client) {
  ottla_client_options of_client = OTTLA_CLIENT_OPTIONS_INIT;
  ottla_producer_options of_producer = OTTLA_PRODUCER_OPTIONS_INIT;
  ottla_test_broker_options of_broker = OTTLA_TEST_BROKER_OPTIONS_INIT;
  ottla_client *other = NULL;
  ottla_producer *producer = NULL;
  ottla_test_broker *another = NULL;
  of_client.bootstrap = ottla_test_broker_bootstrap(broker);
  of_client.reserved = 1;
  FAILS(OTTLA_STATUS_INVALID_ARGUMENT, ottla_client_new(&of_client, &other, E));
  FAILS(OTTLA_STATUS_INVALID_ARGUMENT, ottla_client_connect(&of_client, &other, E));
  of_producer.reserved = -1;
  FAILS(OTTLA_STATUS_INVALID_ARGUMENT, ottla_producer_new(client, &of_producer, &producer, E));
  of_broker.reserved = 1;
  FAILS(OTTLA_STATUS_INVALID_ARGUMENT, ottla_test_broker_new(&of_broker, &another, E));
  CHECK(other == NULL && producer == NULL && another == NULL);
}

static void settings_of_a_producer(ottla_client *client) {
  static const range ranges[] = {
      {SETTING(ottla_producer_options, linger_ms, "linger"), {60000, -1}, {60001, 60001}},
      {SETTING(ottla_producer_options, delivery_timeout_ms, "delivery_timeout"), {10, 86400000}, {9, 86400001}},
      {SETTING(ottla_producer_options, batch_size, "batch_size"), {1 << 10, 16 << 20}, {1023, (16 << 20) + 1}},
      {SETTING(ottla_producer_options, buffer_memory, "buffer_memory"),
       {1 << 20, (int64_t)1 << 40},
       {(1 << 20) - 1, ((int64_t)1 << 40) + 1}},
      {SETTING(ottla_producer_options, max_record_size, "max_record_size"),
       {1, 64 << 20},
       {(100 << 20) + 1, (int64_t)1 << 40}},
  };
  for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++) {
    for (int k = 0; k < 2; k++) {
      ottla_producer_options options = OTTLA_PRODUCER_OPTIONS_INIT;
      ottla_producer *producer = NULL;
      ottla_error *error = NULL;
      memcpy((char *)&options + ranges[i].at, &ranges[i].taken[k], 8);
      OK(ottla_producer_new(client, &options, &producer, E));
      ottla_producer_free(producer);
      memcpy((char *)&options + ranges[i].at, &ranges[i].refused[k], 8);
      ottla_status status = ottla_producer_new(client, &options, &producer, &error);
      named(status, error, &ranges[i], ranges[i].refused[k]);
      CHECK(producer == NULL);
    }
  }
}

static void settings_of_a_consumer(ottla_client *client) {
  static const range ranges[] = {
      {SETTING(ottla_consumer_options, max_wait_ms, "max_wait"), {29999, -1}, {300001, 86400000}},
      {SETTING(ottla_consumer_options, min_bytes, "min_bytes"), {1 << 30, 1}, {(1 << 30) + 1, (int64_t)1 << 40}},
      {SETTING(ottla_consumer_options, max_bytes, "max_bytes"), {1024, 100 << 20}, {1023, (100 << 20) + 1}},
      {SETTING(ottla_consumer_options, max_partition_bytes, "max_partition_bytes"),
       {1024, 100 << 20},
       {1023, (100 << 20) + 1}},
      {SETTING(ottla_consumer_options, buffer_memory, "buffer_memory"),
       {64 << 10, (int64_t)1 << 40},
       {(64 << 10) - 1, ((int64_t)1 << 40) + 1}},
  };
  const char *topic = "t";
  ottla_consumer *consumer = NULL;
  for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++) {
    for (int k = 0; k < 2; k++) {
      ottla_consumer_options options = OTTLA_CONSUMER_OPTIONS_INIT;
      ottla_error *error = NULL;
      options.topics = &topic;
      options.topic_count = 1;
      memcpy((char *)&options + ranges[i].at, &ranges[i].taken[k], 8);
      OK(ottla_consumer_new(client, &options, &consumer, E));
      ottla_consumer_free(consumer);
      memcpy((char *)&options + ranges[i].at, &ranges[i].refused[k], 8);
      ottla_status status = ottla_consumer_new(client, &options, &consumer, &error);
      named(status, error, &ranges[i], ranges[i].refused[k]);
      CHECK(consumer == NULL);
    }
  }
  ottla_consumer_options options = OTTLA_CONSUMER_OPTIONS_INIT;
  ottla_assignment at = {.topic = "t", .partition = 0};
  options.topics = &topic;
  options.topic_count = 1;
  for (options.start = 5; options.start > -3; options.start -= 6) {
    FAILS(OTTLA_STATUS_INVALID_ARGUMENT, ottla_consumer_new(client, &options, &consumer, E));
  }
  options.start = 0;
  for (options.isolation = 3; options.isolation > -2; options.isolation -= 4) {
    FAILS(OTTLA_STATUS_INVALID_ARGUMENT, ottla_consumer_new(client, &options, &consumer, E));
  }
  options.isolation = OTTLA_ISOLATION_READ_COMMITTED;
  OK(ottla_consumer_new(client, &options, &consumer, E));
  ottla_consumer_free(consumer);
  consumer = NULL;
  options.isolation = 0;
  options.assignments = &at;
  options.assignment_count = 1;
  FAILS(OTTLA_STATUS_INVALID_ARGUMENT, ottla_consumer_new(client, &options, &consumer, E));
  options.topics = NULL;
  FAILS(OTTLA_STATUS_INVALID_ARGUMENT, ottla_consumer_new(client, &options, &consumer, E));
  options.topic_count = 0;
  at.partition = -1;
  ottla_error *error = NULL;
  ottla_status status = ottla_consumer_new(client, &options, &consumer, &error);
  CHECK(status == OTTLA_STATUS_INVALID_ARGUMENT);
  CHECK(strstr(ottla_error_message(error), "partition is -1") != NULL);
  ottla_error_free(error);
  at.partition = 0;
  at.start = 5;
  FAILS(OTTLA_STATUS_INVALID_ARGUMENT, ottla_consumer_new(client, &options, &consumer, E));
  at.start = 0;
  at.topic = NULL;
  FAILS(OTTLA_STATUS_INVALID_ARGUMENT, ottla_consumer_new(client, &options, &consumer, E));
}

/* The offset of the first record that a consumer reads. A `producer` goes on sending meanwhile. */
static int64_t begins_at(ottla_client *client, const ottla_consumer_options *options,
                         ottla_producer *producer) {
  enum { SOON_MS = 10 };
  ottla_consumer *consumer = NULL;
  ottla_batch *batch = NULL;
  ottla_record_view view = {.offset = -2};
  int64_t position = 0;
  OK(ottla_consumer_new(client, options, &consumer, E));
  OK(ottla_consumer_position(consumer, "t", 99, &position, E));
  CHECK(position == -1);
  for (int tries = 0; batch == NULL && tries < PATIENCE_MS / SOON_MS; tries++) {
    if (producer != NULL) {
      ottla_record record = {.partition = 1, .flags = OTTLA_RECORD_PARTITION};
      send_one(producer, &record);
      ottla_error_free(next_completion(client).error);
    }
    OK(ottla_consumer_next(consumer, producer != NULL ? SOON_MS : PATIENCE_MS, &batch, E));
  }
  ottla_batch_info info = {.partition = -1};
  OK(ottla_batch_describe(batch, &info, E));
  OK(ottla_batch_record(batch, 0, &view, E));
  CHECK(info.partition == 1 && info.leader_epoch >= 0);
  ottla_batch_free(batch);
  ottla_consumer_free(consumer);
  return view.offset;
}

static void starts(ottla_client *client) {
  ottla_producer *producer = produce(client, NULL);
  for (int i = 0; i < 4; i++) {
    ottla_record record = {.partition = 1,
                           .timestamp_ms = i * 1000,
                           .flags = OTTLA_RECORD_PARTITION | OTTLA_RECORD_TIMESTAMP};
    send_one(producer, &record);
    ottla_completion done = next_completion(client);
    CHECK(done.error == NULL && done.partition == 1);
    CHECK(done.offset == i && done.timestamp_ms == i * 1000);
  }
  static const struct {
    int32_t start;
    int64_t value, offset;
  } expected[] = {{OTTLA_START_DEFAULT, 0, 0},
                  {OTTLA_START_EARLIEST, 0, 0},
                  {OTTLA_START_OFFSET, 3, 3},
                  {OTTLA_START_TIMESTAMP, 1001, 2},
                  {OTTLA_START_LATEST, 0, 4}};
  const char *topic = "t";
  for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
    bool latest = expected[i].start == OTTLA_START_LATEST;
    ottla_consumer_options options = OTTLA_CONSUMER_OPTIONS_INIT;
    ottla_assignment at = {
        .topic = "t", .partition = 1, .start = expected[i].start, .start_value = expected[i].value};
    options.assignments = &at;
    options.assignment_count = 1;
    int64_t offset = begins_at(client, &options, latest ? producer : NULL);
    CHECK(latest ? offset >= expected[i].offset : offset == expected[i].offset);
    if (expected[i].start != OTTLA_START_OFFSET) { /* which partition 0 does not have */
      options.assignments = NULL;
      options.assignment_count = 0;
      options.topics = &topic;
      options.topic_count = 1;
      options.start = expected[i].start;
      options.start_value = expected[i].value;
      offset = begins_at(client, &options, latest ? producer : NULL);
      CHECK(latest ? offset >= expected[i].offset : offset == expected[i].offset);
    }
  }
  ottla_producer_free(producer);
}

/* Whatever a peer says first is read up to a length, and kept. */
typedef struct {
  int listener;
  char said[256];
  ssize_t len;
} peer;

static void *listens(void *argument) {
  peer *p = argument;
  int connection = accept(p->listener, NULL, NULL);
  p->len = read(connection, p->said, sizeof p->said);
  close(connection);
  return NULL;
}

/* Where somebody listens who says nothing by himself. */
static int listener_at(char bootstrap[32]) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t len = sizeof address;
  int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  CHECK(bind(listener, (struct sockaddr *)&address, len) == 0 && listen(listener, 16) == 0);
  CHECK(getsockname(listener, (struct sockaddr *)&address, &len) == 0);
  snprintf(bootstrap, 32, "127.0.0.1:%d", ntohs(address.sin_port));
  return listener;
}

static void what_brokers_are_told(void) {
  char bootstrap[32];
  peer p = {.listener = listener_at(bootstrap)};
  static const struct {
    const char *id, *name, *version, *told[3];
  } cases[] = {{"shop-7", "shop", "4.5", {"shop-7", "shop", "4.5"}},
               {NULL, NULL, NULL, {"ottla", "ottla-c", NULL}}};
  for (size_t i = 0; i < 2; i++) {
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, listens, &p) == 0);
    ottla_client_options options = OTTLA_CLIENT_OPTIONS_INIT;
    ottla_client *client = NULL;
    options.bootstrap = bootstrap;
    options.client_id = cases[i].id;
    options.software_name = cases[i].name;
    options.software_version = cases[i].version;
    OK(ottla_client_new(&options, &client, E));
    pthread_join(thread, NULL);
    ottla_client_free(client);
    for (int k = 0; k < 3; k++) {
      /* Behind its length, and the software's is one more. */
      const char *text = cases[i].told[k] == NULL ? ottla_version() : cases[i].told[k];
      char sized[64];
      int n = snprintf(sized, sizeof sized, "%c%s", (int)strlen(text) + (k > 0), text);
      CHECK(p.len > 0 && memmem(p.said, (size_t)p.len, sized, (size_t)n) != NULL);
    }
  }
  close(p.listener);
}

/* Followers copy nothing: what is sent has no outcome until they do. Five seconds are the records' own. */
static ottla_producer_options patient(void) {
  ottla_producer_options options = OTTLA_PRODUCER_OPTIONS_INIT;
  options.delivery_timeout_ms = 5000;
  options.compression = OTTLA_COMPRESSION_NONE;
  return options;
}

static void waits_end_in_time(void) {
  enum { SOON_MS = 20 };
  ottla_test_broker *broker = start(2);
  OK(ottla_test_broker_create_topic(broker, "t", 1, 2, E));
  OK(ottla_test_broker_set_replica_delay(broker, -1, E));
  ottla_client *client = connect_to(ottla_test_broker_bootstrap(broker));
  ottla_producer_options options = patient();
  ottla_producer *producer = produce(client, &options);
  ottla_record record = {0};
  send_one(producer, &record);
  FAILS(OTTLA_STATUS_TIMEOUT, ottla_producer_flush_wait(producer, SOON_MS, E));
  /* Without a limit it comes, however late. */
  OK(ottla_test_broker_set_replica_delay(broker, 100, E));
  OK(ottla_producer_flush_wait(producer, -1, E));
  ottla_completion done = next_completion(client);
  CHECK(done.error == NULL);
  send_one(producer, &record);
  size_t count = 0;
  OK(ottla_poll(client, &done, 1, -1, &count, E));
  CHECK(count == 1 && done.error == NULL);
  /* So does what is read. */
  ottla_consumer *consumer = consume(client, "t", 2);
  ottla_batch *batch = NULL;
  for (size_t seen = 0; seen < 2;) {
    OK(ottla_consumer_next(consumer, PATIENCE_MS, &batch, E));
    CHECK(batch != NULL);
    seen += batch == NULL ? 2 : ottla_batch_len(batch);
    ottla_batch_free(batch);
  }
  send_one(producer, &record);
  OK(ottla_consumer_next(consumer, -1, &batch, E));
  CHECK(ottla_batch_len(batch) == 1);
  ottla_batch_free(batch);
  done = next_completion(client);
  CHECK(done.kind == OTTLA_COMPLETION_DELIVERY && done.error == NULL);
  ottla_consumer_free(consumer);
  OK(ottla_test_broker_set_replica_delay(broker, -1, E));
  send_one(producer, &record);
  ottla_error *error = NULL;
  CHECK(ottla_producer_close_wait(producer, SOON_MS, &error) == OTTLA_STATUS_TIMEOUT);
  CHECK(strstr(ottla_error_message(error), "20ms") != NULL);
  ottla_error_free(error);
  done = next_completion(client);
  CHECK(done.kind == OTTLA_COMPLETION_DELIVERY && ottla_error_maybe_written(done.error));
  ottla_error_free(done.error);
  ottla_producer_free(producer);

  /* A close that has time uses it. */
  producer = produce(client, &options);
  send_one(producer, &record);
  OK(ottla_producer_close(producer, PATIENCE_MS, 8, E));
  OK(ottla_test_broker_set_replica_delay(broker, 0, E));
  done = next_completion(client);
  CHECK(done.kind == OTTLA_COMPLETION_DELIVERY && done.error == NULL);
  ottla_error_free(done.error);
  done = next_completion(client);
  CHECK(done.kind == OTTLA_COMPLETION_CLOSED && done.tag == 8 && done.error == NULL);
  ottla_error_free(done.error);
  ottla_producer_free(producer);
  ottla_client_free(client);
  ottla_test_broker_free(broker);

  /* Nobody is there to make a topic: it is this call's limit that ends it. */
  char bootstrap[32];
  int listener = listener_at(bootstrap);
  ottla_client_options settings = OTTLA_CLIENT_OPTIONS_INIT;
  settings.bootstrap = bootstrap;
  settings.connect_timeout_ms = 3000;
  OK(ottla_client_new(&settings, &client, E));
  error = NULL;
  CHECK(ottla_create_topic_wait(client, "c", 1, 1, SOON_MS, &error) == OTTLA_STATUS_TIMEOUT);
  CHECK(strstr(ottla_error_message(error), "20ms") != NULL && ottla_error_is_retriable(error));
  ottla_error_free(error);
  ottla_client_free(client);
  close(listener);
}

/* The engine's memory is full: told as such, and its end as a completion with the producer's own tag. */
static void a_full_buffer(void) {
  enum { LEN = 100000 };
  ottla_test_broker *broker = start(2);
  OK(ottla_test_broker_create_topic(broker, "t", 1, 2, E));
  OK(ottla_test_broker_set_replica_delay(broker, -1, E));
  ottla_client *client = connect_to(ottla_test_broker_bootstrap(broker));
  ottla_producer_options options = patient();
  options.delivery_timeout_ms = 0;
  options.buffer_memory = 1 << 20;
  options.tag = 77;
  ottla_producer *producer = produce(client, &options);
  static const uint8_t value[LEN];
  ottla_record record = {.value = value, .value_len = LEN};
  ottla_status status = OTTLA_STATUS_OK;
  ottla_error *error = NULL;
  uint32_t sent = 0, told = 0;
  while (status == OTTLA_STATUS_OK && sent < 20) {
    size_t accepted = 0;
    status = ottla_producer_send_batch(producer, "t", &record, 1, 1, &accepted, &error);
    sent += (uint32_t)accepted;
  }
  CHECK(status == OTTLA_STATUS_BUFFER_FULL && sent > 2 && sent < 11);
  CHECK(ottla_error_is_retriable(error) && !ottla_error_is_fatal(error));
  CHECK(strcmp(ottla_error_advice(error), ottla_error_message(error)) != 0);
  ottla_error_free(error);
  OK(ottla_test_broker_set_replica_delay(broker, 0, E));
  int spaces = 0;
  while (told < sent || spaces == 0) {
    ottla_completion done = next_completion(client);
    if (done.kind == 0) {
      break;
    }
    CHECK(done.error == NULL);
    if (done.kind == OTTLA_COMPLETION_SPACE) {
      CHECK(done.tag == 77);
      spaces++;
    } else {
      CHECK(done.kind == OTTLA_COMPLETION_DELIVERY && done.tag == 1);
      told += done.count;
    }
  }
  CHECK(told == sent && spaces == 1);
  ottla_producer_free(producer);
  ottla_client_free(client);
  ottla_test_broker_free(broker);
}

/* Replicas and partitions in their places; what a broker refuses comes with its own number. */
static void topics(void) {
  ottla_test_broker *broker = start(3);
  ottla_client *client = connect_to(ottla_test_broker_bootstrap(broker));
  int64_t end = -1;
  OK(ottla_create_topic_wait(client, "a", 5, 2, -1, E));
  OK(ottla_test_broker_log_end(broker, "a", 4, &end, E));
  FAILS(OTTLA_STATUS_INVALID_ARGUMENT, ottla_test_broker_log_end(broker, "a", 5, &end, E));
  OK(ottla_create_topic(client, "b", 4, 2, 1, E));
  ottla_completion done = next_completion(client);
  CHECK(done.kind == OTTLA_COMPLETION_TOPIC_CREATED && done.error == NULL);
  OK(ottla_test_broker_log_end(broker, "b", 3, &end, E));
  FAILS(OTTLA_STATUS_INVALID_ARGUMENT, ottla_test_broker_log_end(broker, "b", 4, &end, E));
  ottla_error *error = NULL;
  CHECK(ottla_create_topic_wait(client, "a", 1, 1, -1, &error) == OTTLA_STATUS_TOPIC_EXISTS);
  CHECK(ottla_error_broker_code(error) == 36 && !ottla_error_is_retriable(error));
  ottla_error_free(error);
  ottla_client_free(client);
  ottla_test_broker_free(broker);
}

int main(void) {
  ottla_test_broker *broker = start(1);
  OK(ottla_test_broker_create_topic(broker, "t", 2, 1, E));
  ottla_client *client = connect_to(ottla_test_broker_bootstrap(broker));
  RUN(settings_of_a_client(broker));
  RUN(settings_of_a_producer(client));
  RUN(settings_of_a_consumer(client));
  RUN(starts(client));
  RUN(reserved_members(broker, client));
  ottla_client_free(client);
  ottla_test_broker_free(broker);
  RUN(what_brokers_are_told());
  RUN(waits_end_in_time());
  RUN(a_full_buffer());
  RUN(topics());
  return summary();
}
