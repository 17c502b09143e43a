/* Every choice of a client and a producer does what it says, seen from the embedded cluster. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "cluster.h"

static ottla_test_broker *start(int32_t brokers, const char *const *racks, size_t rack_count) {
  ottla_test_broker_options options = OTTLA_TEST_BROKER_OPTIONS_INIT;
  ottla_test_broker *broker = NULL;
  options.brokers = brokers;
  options.racks = racks;
  options.rack_count = rack_count;
  OK(ottla_test_broker_new(&options, &broker, E));
  if (broker == NULL) {
    exit(summary());
  }
  return broker;
}

static ottla_client *connect_with(ottla_test_broker *broker, ottla_client_options options) {
  ottla_client *client = NULL;
  options.bootstrap = ottla_test_broker_bootstrap(broker);
  OK(ottla_client_connect(&options, &client, E));
  if (client == NULL) {
    exit(summary());
  }
  return client;
}

static ottla_producer *produce(ottla_client *client, const ottla_producer_options *options) {
  ottla_producer *producer = NULL;
  OK(ottla_producer_new(client, options, &producer, E));
  return producer;
}

static void send_one(ottla_producer *producer, const char *topic, const ottla_record *record) {
  size_t accepted = 0;
  OK(ottla_producer_send_batch(producer, topic, record, 1, 1, &accepted, E));
}

/* Sends a record and waits for what becomes of it. */
static ottla_completion deliver(ottla_client *client, ottla_producer *producer, const char *topic,
                                const ottla_record *record) {
  send_one(producer, topic, record);
  ottla_completion done = next_completion(client);
  CHECK(done.kind == OTTLA_COMPLETION_DELIVERY && done.error == NULL);
  ottla_error_free(done.error);
  return done;
}

/* Words without much order: levels of a codec differ on them. */
static ottla_record text_record(void) {
  enum { LEN = 200000 };
  static uint8_t text[LEN];
  uint32_t state = 1;
  for (size_t i = 0; i < LEN; i++) {
    state = state * 1664525 + 1013904223;
    text[i] = i % 6 == 5 ? ' ' : (uint8_t)("etaoinshrdluetao"[state >> 28]);
  }
  return (ottla_record){.value = text, .value_len = LEN};
}

/* The sum of all numbers that the statistics have under a name. */
static uint64_t total(ottla_client *client, const char *name) {
  char *json = NULL, quoted[64];
  uint64_t sum = 0;
  OK(ottla_client_stats_json(client, &json, E));
  snprintf(quoted, sizeof quoted, "\"%s\":", name);
  for (const char *at = json; at != NULL && (at = strstr(at, quoted)) != NULL;) {
    at += strlen(quoted);
    sum += strtoull(at, NULL, 10);
  }
  ottla_string_free(json);
  return sum;
}

/* Between two looks at something that changes by itself; false once it took too long. */
static bool look_again(int *looks) {
  enum { EVERY_MS = 10 };
  poll(NULL, 0, EVERY_MS);
  CHECK(*looks < PATIENCE_MS / EVERY_MS);
  return ++*looks <= PATIENCE_MS / EVERY_MS;
}

static int64_t log_end(ottla_test_broker *broker, const char *topic, int32_t partition) {
  int64_t end = -1;
  OK(ottla_test_broker_log_end(broker, topic, partition, &end, E));
  return end;
}

static void codecs(void) {
  ottla_test_broker *broker = start(1, NULL, 0);
  ottla_client *client = connect_to(ottla_test_broker_bootstrap(broker));
  ottla_record record = text_record();
  uint32_t seen = 0;
  for (int32_t codec = OTTLA_COMPRESSION_DEFAULT; codec <= OTTLA_COMPRESSION_ZSTD; codec++) {
    char topic[16];
    snprintf(topic, sizeof topic, "codec-%d", codec);
    OK(ottla_test_broker_create_topic(broker, topic, 1, 1, E));
    ottla_producer_options options = OTTLA_PRODUCER_OPTIONS_INIT;
    options.compression = codec;
    ottla_producer *producer = produce(client, &options);
    deliver(client, producer, topic, &record);
    OK(ottla_test_broker_codecs(broker, topic, &seen, E));
    CHECK(seen == 1u << (codec == OTTLA_COMPRESSION_DEFAULT ? OTTLA_COMPRESSION_LZ4 : codec));
    ottla_producer_free(producer);
  }
  FAILS(OTTLA_STATUS_INVALID_ARGUMENT, ottla_test_broker_codecs(broker, "nowhere", &seen, E));

  ottla_topic_compression topics[] = {
      {.topic = "a", .compression = OTTLA_COMPRESSION_ZSTD},
      {.topic = "b", .compression = OTTLA_COMPRESSION_GZIP, .compression_level = 9},
  };
  ottla_producer_options options = OTTLA_PRODUCER_OPTIONS_INIT;
  options.compression = OTTLA_COMPRESSION_SNAPPY;
  options.topic_compressions = topics;
  options.topic_compression_count = 2;
  ottla_producer *producer = produce(client, &options);
  static const struct {
    const char *topic;
    int32_t codec;
  } expected[] = {{"a", OTTLA_COMPRESSION_ZSTD},
                  {"b", OTTLA_COMPRESSION_GZIP},
                  {"c", OTTLA_COMPRESSION_SNAPPY}};
  for (size_t i = 0; i < 3; i++) {
    OK(ottla_test_broker_create_topic(broker, expected[i].topic, 1, 1, E));
    deliver(client, producer, expected[i].topic, &record);
    OK(ottla_test_broker_codecs(broker, expected[i].topic, &seen, E));
    CHECK(seen == 1u << expected[i].codec);
  }
  ottla_producer_free(producer);
  ottla_client_free(client);
  ottla_test_broker_free(broker);
}

/* Bytes on the wire for the same record. */
static uint64_t size_with(ottla_client *client, const ottla_producer_options *options) {
  ottla_producer *producer = produce(client, options);
  ottla_record record = text_record();
  uint64_t before = total(client, "produce_bytes");
  deliver(client, producer, "t", &record);
  ottla_producer_free(producer);
  return total(client, "produce_bytes") - before;
}

static uint64_t size_at(ottla_client *client, int32_t codec, int32_t level) {
  ottla_producer_options options = OTTLA_PRODUCER_OPTIONS_INIT;
  options.compression = codec;
  options.compression_level = level;
  return size_with(client, &options);
}

/* The same as the topic's own, beside the best that gzip does for all others. */
static uint64_t size_of_its_own(ottla_client *client, int32_t codec, int32_t level) {
  ottla_topic_compression own = {.topic = "t", .compression = codec, .compression_level = level};
  ottla_producer_options options = OTTLA_PRODUCER_OPTIONS_INIT;
  options.compression = OTTLA_COMPRESSION_GZIP;
  options.compression_level = 9;
  options.topic_compressions = &own;
  options.topic_compression_count = 1;
  return size_with(client, &options);
}

static void levels(void) {
  ottla_test_broker *broker = start(1, NULL, 0);
  OK(ottla_test_broker_create_topic(broker, "t", 1, 1, E));
  ottla_client *client = connect_to(ottla_test_broker_bootstrap(broker));
  uint64_t quick = size_at(client, OTTLA_COMPRESSION_GZIP, 1);
  CHECK(size_at(client, OTTLA_COMPRESSION_GZIP, 9) < quick);
  CHECK(size_at(client, OTTLA_COMPRESSION_GZIP, 0) < quick);
  quick = size_at(client, OTTLA_COMPRESSION_ZSTD, -7);
  CHECK(size_at(client, OTTLA_COMPRESSION_ZSTD, 19) < quick);
  CHECK(size_at(client, OTTLA_COMPRESSION_ZSTD, 0) < quick);
  quick = size_of_its_own(client, OTTLA_COMPRESSION_GZIP, 1);
  CHECK(size_of_its_own(client, OTTLA_COMPRESSION_GZIP, 9) < quick);
  CHECK(size_of_its_own(client, OTTLA_COMPRESSION_GZIP, 0) < quick);
  ottla_client_free(client);
  ottla_test_broker_free(broker);
}

/* Keys, and what Java's `Utils.murmur2` makes of them. */
static void keys_go_where_java_puts_them(void) {
  enum { PARTITIONS = 7 };
  static const struct {
    const char *key;
    int32_t hash;
  } keys[] = {{"21", -973932308}, {"foobar", -790332482}, {"abc", 479470107},
              {"a-little-bit-long-string", -985981536},
              {"a-little-bit-longer-string", -1486304829}};
  ottla_test_broker *broker = start(3, NULL, 0);
  OK(ottla_test_broker_create_topic(broker, "t", PARTITIONS, 1, E));
  ottla_client *client = connect_to(ottla_test_broker_bootstrap(broker));
  ottla_producer_options options = OTTLA_PRODUCER_OPTIONS_INIT;
  options.partitioner = OTTLA_PARTITIONER_KEY_HASH;
  ottla_producer *producer = produce(client, &options);
  for (size_t i = 0; i < 3 * sizeof keys / sizeof keys[0]; i++) {
    size_t k = i % (sizeof keys / sizeof keys[0]);
    ottla_record record = {.key = (const uint8_t *)keys[k].key, .key_len = strlen(keys[k].key)};
    ottla_completion done = deliver(client, producer, "t", &record);
    CHECK(done.partition == (keys[k].hash & INT32_MAX) % PARTITIONS);
  }
  ottla_producer_free(producer);
  ottla_client_free(client);
  ottla_test_broker_free(broker);
}

/* Followers never copy anything: acknowledged all the same, unless all have to. */
static void acknowledged_without_followers(int32_t acks) {
  ottla_test_broker *broker = start(2, NULL, 0);
  OK(ottla_test_broker_create_topic(broker, "t", 1, 2, E));
  OK(ottla_test_broker_set_replica_delay(broker, -1, E));
  ottla_client *client = connect_to(ottla_test_broker_bootstrap(broker));
  ottla_producer_options options = OTTLA_PRODUCER_OPTIONS_INIT;
  options.acks = acks;
  ottla_producer *producer = produce(client, &options);
  ottla_record record = {0};
  send_one(producer, "t", &record);
  int looks = 0;
  while (log_end(broker, "t", 0) == 0 && look_again(&looks)) {
  }
  if (acks == OTTLA_ACKS_ALL) {
    OK(ottla_test_broker_set_replica_delay(broker, 0, E));
  }
  ottla_completion done = next_completion(client);
  CHECK(done.kind == OTTLA_COMPLETION_DELIVERY && done.error == NULL);
  CHECK(done.offset == (acks == OTTLA_ACKS_NONE ? -1 : 0));
  /* Only what is idempotent needs an id. */
  char *json = NULL;
  OK(ottla_client_stats_json(client, &json, E));
  CHECK((strstr(json, "\"InitProducerId\"") != NULL) == (acks == OTTLA_ACKS_ALL));
  ottla_string_free(json);
  ottla_producer_free(producer);
  ottla_client_free(client);
  ottla_test_broker_free(broker);
}

/* The broker is lost that has the record and did not say so. */
static void in_doubt(int32_t choice) {
  enum { BROKERS = 3 };
  ottla_test_broker *broker = start(BROKERS, NULL, 0);
  OK(ottla_test_broker_create_topic(broker, "t", BROKERS, BROKERS, E));
  OK(ottla_test_broker_set_replica_delay(broker, -1, E));
  ottla_client *client = connect_to(ottla_test_broker_bootstrap(broker));
  ottla_producer_options options = OTTLA_PRODUCER_OPTIONS_INIT;
  options.in_doubt = choice;
  ottla_producer *producer = produce(client, &options);
  ottla_record record = {0};
  send_one(producer, "t", &record);
  int32_t at = -1;
  int looks = 0;
  while (at < 0 && look_again(&looks)) {
    for (int32_t p = 0; p < BROKERS; p++) {
      at = log_end(broker, "t", p) > 0 ? p : at;
    }
  }
  OK(ottla_test_broker_stop_broker(broker, at + 1, 0, E));
  OK(ottla_test_broker_set_replica_delay(broker, 0, E));
  if (choice == OTTLA_IN_DOUBT_WAIT) {
    OK(ottla_test_broker_start_broker(broker, at + 1, E));
  }
  ottla_completion done = next_completion(client);
  CHECK(done.kind == OTTLA_COMPLETION_DELIVERY && done.error == NULL && done.offset == 0);
  CHECK((done.partition == at) == (choice == OTTLA_IN_DOUBT_WAIT));
  int64_t written = 0;
  for (int32_t p = 0; p < BROKERS; p++) {
    written += log_end(broker, "t", p);
  }
  CHECK(written == (choice == OTTLA_IN_DOUBT_WAIT ? 1 : 2));
  ottla_producer_free(producer);
  ottla_client_free(client);
  ottla_test_broker_free(broker);
}

/* Twelve brokers, of which a client with little to send uses six. Partition p is on p mod n + 1. */
enum { MANY = 12, ENOUGH = 5 };

/* Sends bursts of small batches until ENOUGH brokers took some: more than are left of the six if
 * those that must not be used are taken away. Bit 1 << b for each broker b. */
static uint32_t brokers_used(ottla_client *client) {
  enum { BURST = 40, LEN = 900 };
  static const uint8_t value[LEN];
  ottla_producer_options options = OTTLA_PRODUCER_OPTIONS_INIT;
  options.batch_size = 1024;
  options.compression = OTTLA_COMPRESSION_NONE;
  ottla_producer *producer = produce(client, &options);
  ottla_record records[BURST] = {{0}};
  for (int i = 0; i < BURST; i++) {
    records[i].value = value;
    records[i].value_len = LEN;
  }
  uint32_t used = 0;
  int count = 0, looks = 0;
  while (count < ENOUGH && look_again(&looks)) {
    size_t accepted = 0;
    OK(ottla_producer_send_batch(producer, "t", records, BURST, 1, &accepted, E));
    for (uint32_t told = 0; told < accepted;) {
      ottla_completion done = next_completion(client);
      CHECK(done.kind == OTTLA_COMPLETION_DELIVERY && done.error == NULL);
      if (done.kind != OTTLA_COMPLETION_DELIVERY) {
        break;
      }
      uint32_t bit = 1u << (done.partition % MANY + 1);
      count += (used & bit) == 0;
      used |= bit;
      told += done.count;
      ottla_error_free(done.error);
    }
  }
  ottla_producer_free(producer);
  return used;
}

static void racks_and_ordinals(void) {
  static const char *const racks[] = {"a", "b"};
  ottla_test_broker *broker = start(MANY, racks, 2);
  OK(ottla_test_broker_create_topic(broker, "t", 2 * MANY, 1, E));
  /* Brokers 1, 3, 5... are in rack a. */
  const uint32_t rack_a = 0xaaaaaaaa;
  ottla_client_options options = OTTLA_CLIENT_OPTIONS_INIT;
  options.rack = "a";
  ottla_client *client = connect_with(broker, options);
  CHECK((brokers_used(client) & ~rack_a) == 0);
  ottla_client_free(client);
  options.rack = "b";
  client = connect_with(broker, options);
  CHECK((brokers_used(client) & rack_a) == 0);
  ottla_client_free(client);

  options.rack = NULL;
  options.ordinal_count = 2;
  client = connect_with(broker, options);
  options.ordinal_index = 1;
  ottla_client *other = connect_with(broker, options);
  CHECK((brokers_used(client) & brokers_used(other)) == 0);
  ottla_client_free(client);
  ottla_client_free(other);
  ottla_test_broker_free(broker);
}

static void idle_connections_are_closed(void) {
  ottla_test_broker *broker = start(1, NULL, 0);
  ottla_client_options options = OTTLA_CLIENT_OPTIONS_INIT;
  options.idle_timeout_ms = 1000;
  ottla_client *client = connect_with(broker, options);
  int looks = 0;
  while (total(client, "idle_closes") == 0 && look_again(&looks)) {
  }
  ottla_client_free(client);
  ottla_test_broker_free(broker);
}

static void refused(void) {
  ottla_test_broker *broker = start(1, NULL, 0);
  ottla_client *client = NULL;
  ottla_client_options settings = OTTLA_CLIENT_OPTIONS_INIT;
  settings.bootstrap = ottla_test_broker_bootstrap(broker);
  settings.idle_timeout_ms = 999;
  FAILS(OTTLA_STATUS_CONFIG, ottla_client_connect(&settings, &client, E));
  settings.idle_timeout_ms = 0;
  settings.ordinal_index = settings.ordinal_count = 2;
  FAILS(OTTLA_STATUS_CONFIG, ottla_client_connect(&settings, &client, E));
  settings.ordinal_count = 0;
  FAILS(OTTLA_STATUS_CONFIG, ottla_client_connect(&settings, &client, E));
  settings.ordinal_index = 0;
  settings.rack = "\xff";
  FAILS(OTTLA_STATUS_INVALID_ARGUMENT, ottla_client_connect(&settings, &client, E));

  client = connect_to(ottla_test_broker_bootstrap(broker));
  ottla_topic_compression topic = {.topic = "t"};
  const struct {
    ottla_producer_options options;
    ottla_status status;
  } wrong[] = {
      {{.batch_size = 1}, OTTLA_STATUS_CONFIG},
      {{.compression_level = 3}, OTTLA_STATUS_CONFIG},
      {{.compression = OTTLA_COMPRESSION_SNAPPY, .compression_level = 1}, OTTLA_STATUS_CONFIG},
      {{.compression = OTTLA_COMPRESSION_GZIP, .compression_level = 10}, OTTLA_STATUS_CONFIG},
      {{.compression = OTTLA_COMPRESSION_ZSTD, .compression_level = 23}, OTTLA_STATUS_CONFIG},
      {{.compression = 6}, OTTLA_STATUS_INVALID_ARGUMENT},
      {{.partitioner = 3}, OTTLA_STATUS_INVALID_ARGUMENT},
      {{.acks = -1}, OTTLA_STATUS_INVALID_ARGUMENT},
      {{.in_doubt = 3}, OTTLA_STATUS_INVALID_ARGUMENT},
      {{.topic_compressions = &topic, .topic_compression_count = 1}, OTTLA_STATUS_INVALID_ARGUMENT},
      {{.topic_compression_count = 1}, OTTLA_STATUS_INVALID_ARGUMENT},
  };
  for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
    ottla_producer_options options = wrong[i].options;
    ottla_producer *producer = NULL;
    options.size = sizeof options;
    FAILS(wrong[i].status, ottla_producer_new(client, &options, &producer, E));
    CHECK(producer == NULL);
  }
  ottla_client_free(client);
  ottla_test_broker_free(broker);
}

static void properties(void) {
  const ottla_property list[] = {
      {"linger.ms", "20"}, {"compression.type", "zstd"}, {"compression.level", "9"},
      {"client.id", "c"},  {"retries", "2147483647"},
  };
  char *json = NULL;
  OK(ottla_properties_json(OTTLA_OWNER_PRODUCER, list, 5, &json, E));
  CHECK(json != NULL && strcmp(json, "{\"compression\":\"zstd:9\",\"linger\":20000000}") == 0);
  ottla_string_free(json);
  OK(ottla_properties_json(OTTLA_OWNER_CLIENT, list, 5, &json, E));
  CHECK(json != NULL && strcmp(json, "{\"client_id\":\"c\"}") == 0);
  ottla_string_free(json);
  const ottla_property secret = {"sasl.password", "hunter2"};
  ottla_error *error = NULL;
  CHECK(ottla_properties_json(OTTLA_OWNER_CLIENT, &secret, 1, &json, &error) ==
        OTTLA_STATUS_CONFIG);
  CHECK(json == NULL && strstr(ottla_error_message(error), "sasl.password") != NULL &&
        strstr(ottla_error_message(error), "hunter2") == NULL);
  ottla_error_free(error);
  FAILS(OTTLA_STATUS_INVALID_ARGUMENT, ottla_properties_json(0, list, 5, &json, E));
  const ottla_property incomplete[] = {{NULL, "x"}, {"client.id", NULL}};
  for (size_t i = 0; i < 2; i++) {
    FAILS(OTTLA_STATUS_INVALID_ARGUMENT,
          ottla_properties_json(OTTLA_OWNER_CLIENT, &incomplete[i], 1, &json, E));
  }
}

int main(void) {
  RUN(codecs());
  RUN(levels());
  RUN(keys_go_where_java_puts_them());
  for (int32_t acks = OTTLA_ACKS_ALL; acks <= OTTLA_ACKS_NONE; acks++) {
    RUN(acknowledged_without_followers(acks));
  }
  RUN(in_doubt(OTTLA_IN_DOUBT_WAIT));
  RUN(in_doubt(OTTLA_IN_DOUBT_REROUTE));
  RUN(racks_and_ordinals());
  RUN(idle_connections_are_closed());
  RUN(refused());
  RUN(properties());
  return summary();
}
