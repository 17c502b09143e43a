/* What the tests against a cluster share, embedded or real. */
#ifndef OTTLA_TEST_CLUSTER_H
#define OTTLA_TEST_CLUSTER_H

#include <ottla.h>

#include <arpa/inet.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "check.h"

/* Long enough for a machine that is busy with something else. */
enum { PATIENCE_MS = 60000 };

static inline ottla_client *connect_to(const char *bootstrap) {
  ottla_client_options options = OTTLA_CLIENT_OPTIONS_INIT;
  ottla_client *client = NULL;
  options.bootstrap = bootstrap;
  OK(ottla_client_connect(&options, &client, E));
  if (client == NULL) {
    exit(summary());
  }
  return client;
}

/* The next completion, by the descriptor. */
static inline ottla_completion next_completion(ottla_client *client) {
  ottla_completion done = {0};
  size_t count = 0;
  struct pollfd fd = {.fd = ottla_client_fd(client), .events = POLLIN};
  CHECK(poll(&fd, 1, PATIENCE_MS) == 1);
  OK(ottla_poll(client, &done, 1, 0, &count, E));
  CHECK(count == 1);
  return done;
}

static inline ottla_consumer *consume(ottla_client *client, const char *topic, uint64_t tag) {
  ottla_consumer_options options = OTTLA_CONSUMER_OPTIONS_INIT;
  ottla_consumer *consumer = NULL;
  options.topics = &topic;
  options.topic_count = 1;
  options.tag = tag;
  OK(ottla_consumer_new(client, &options, &consumer, E));
  return consumer;
}

/* Sends in an event loop, reads in one, and then again by waiting. */
static inline void round_trip(const char *bootstrap, int32_t compression) {
  enum { RECORDS = 1000 };
  char topic[64];
  snprintf(topic, sizeof topic, "c-%ld-%ld-%d", (long)time(NULL), (long)getpid(), compression);
  ottla_client_options options = OTTLA_CLIENT_OPTIONS_INIT;
  ottla_client *client = NULL;
  options.bootstrap = bootstrap;
  options.tag = 1;
  OK(ottla_client_new(&options, &client, E));
  ottla_completion done = next_completion(client);
  CHECK(done.kind == OTTLA_COMPLETION_CONNECTED && done.tag == 1 && done.error == NULL);
  OK(ottla_create_topic(client, topic, 3, 1, 2, E));
  done = next_completion(client);
  CHECK(done.kind == OTTLA_COMPLETION_TOPIC_CREATED && done.tag == 2 && done.error == NULL);

  ottla_consumer *consumer = consume(client, topic, 3);
  ottla_producer_options settings = OTTLA_PRODUCER_OPTIONS_INIT;
  settings.compression = compression;
  ottla_producer *producer = NULL;
  OK(ottla_producer_new(client, &settings, &producer, E));

  char values[RECORDS][16];
  ottla_header header = {.name = "n", .name_len = 1, .value = (const uint8_t *)"h", .value_len = 1};
  ottla_record records[RECORDS] = {{0}};
  for (int i = 0; i < RECORDS; i++) {
    snprintf(values[i], sizeof values[i], "value-%d", i);
    records[i].value = (const uint8_t *)values[i];
    records[i].value_len = strlen(values[i]);
    records[i].headers = &header;
    records[i].header_count = i % 2;
    records[i].partition = i % 3;
    records[i].flags = OTTLA_RECORD_PARTITION;
  }
  size_t accepted = 0;
  OK(ottla_producer_send_batch(producer, topic, records, RECORDS, 42, &accepted, E));
  CHECK(accepted == RECORDS);
  uint32_t told = 0;
  size_t seen = 0;
  int per_partition[3] = {0};
  uint32_t headers_seen = 0;
  int empty = 0;
  while (told < RECORDS || seen < RECORDS) {
    ottla_batch *batch = NULL;
    OK(ottla_consumer_try_next(consumer, &batch, E));
    if (batch == NULL) {
      empty++;
      done = next_completion(client);
      if (done.kind == 0) {
        break; /* nothing for a minute: next_completion has said so */
      }
      CHECK(done.error == NULL);
      if (done.kind == OTTLA_COMPLETION_DELIVERY) {
        CHECK(done.tag == 42 && done.offset >= 0);
        CHECK(done.partition == (int32_t)(done.first % 3));
        told += done.count;
      } else {
        CHECK(done.kind == OTTLA_COMPLETION_CONSUMER_READY && done.tag == 3);
      }
      continue;
    }
    ottla_batch_info info;
    OK(ottla_batch_describe(batch, &info, E));
    CHECK(strcmp(info.topic, topic) == 0 && info.partition >= 0 && info.partition < 3);
    for (size_t i = 0; i < info.record_count; i++) {
      ottla_record_view view;
      char expected[16];
      if (ottla_batch_record(batch, i, &view, NULL) != OTTLA_STATUS_OK) {
        CHECK(false);
        break;
      }
      int number = per_partition[info.partition]++ * 3 + info.partition;
      snprintf(expected, sizeof expected, "value-%d", number);
      CHECK(view.key == NULL && same(view.value, view.value_len, expected));
      CHECK(view.header_count == (size_t)(number % 2));
      headers_seen += (uint32_t)view.header_count;
      seen++;
    }
    ottla_batch_free(batch);
  }
  CHECK(told == RECORDS && seen == RECORDS && headers_seen == RECORDS / 2 && empty > 0);
  ottla_producer_free(producer);
  ottla_consumer_free(consumer);

  consumer = consume(client, topic, 4);
  for (seen = 0; seen < RECORDS;) {
    ottla_batch *batch = NULL;
    OK(ottla_consumer_next(consumer, PATIENCE_MS, &batch, E));
    CHECK(batch != NULL);
    if (batch == NULL) {
      break;
    }
    seen += ottla_batch_len(batch);
    ottla_batch_free(batch);
  }
  CHECK(seen == RECORDS);
  ottla_client_free(client);
  ottla_consumer_free(consumer);
}

/* A client that names no cluster gets this error, whether it waits or is told. */
static inline void expect_no_client(const char *bootstrap, ottla_status expected) {
  ottla_client_options options = OTTLA_CLIENT_OPTIONS_INIT;
  ottla_client *client = NULL;
  options.bootstrap = bootstrap;
  options.connect_timeout_ms = 1000;
  FAILS(expected, ottla_client_connect(&options, &client, E));
  CHECK(client == NULL);
  options.tag = 9;
  OK(ottla_client_new(&options, &client, E));
  ottla_completion done = next_completion(client);
  CHECK(done.kind == OTTLA_COMPLETION_CONNECTED && done.tag == 9);
  CHECK(ottla_error_status(done.error) == expected);
  CHECK(ottla_error_advice(done.error)[0] != 0);
  ottla_error_free(done.error);
  ottla_client_free(client);
}

/* A socket on a port of its own, which does not listen yet. */
static inline int local_socket(char bootstrap[32]) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t len = sizeof address;
  int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  CHECK(listener >= 0 && bind(listener, (struct sockaddr *)&address, len) == 0);
  CHECK(getsockname(listener, (struct sockaddr *)&address, &len) == 0);
  snprintf(bootstrap, 32, "127.0.0.1:%d", ntohs(address.sin_port));
  return listener;
}

#endif
