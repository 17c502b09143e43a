/* The C library in the benchmark of the bindings: one measurement in a process of its own, as ottla-bench starts it.
 *
 *   bench FIGURE RECORDS BOOTSTRAP
 *
 * prints one JSON object. The records are those of ottla-bench: JSON with repeated names and changing fields.
 */
#include <ottla.h>

#include <inttypes.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { VALUES = 1 << 12, VALUE_LEN = 100, MANY = 1000 };

static const char *const TOPIC = "bench";

static void check(ottla_status status, ottla_error **error) {
  if (status == OTTLA_STATUS_OK) {
    return;
  }
  fprintf(stderr, "%s. %s\n", ottla_error_message(*error), ottla_error_advice(*error));
  ottla_error_free(*error);
  exit(1);
}

static double seconds(clockid_t clock) {
  struct timespec t;
  clock_gettime(clock, &t);
  return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* A line of /proc/self/status, in megabytes; 0 where the system does not tell. */
static double memory(const char *name) {
  FILE *status = fopen("/proc/self/status", "r");
  char line[256];
  double kib = 0;
  while (status != NULL && fgets(line, sizeof line, status) != NULL) {
    if (strncmp(line, name, strlen(name)) == 0) {
      kib = strtod(line + strlen(name), NULL);
    }
  }
  if (status != NULL) {
    fclose(status);
  }
  return kib * 1024 / 1e6;
}

static uint64_t state = 0x5eed;

static unsigned draw(void) {
  state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
  return (unsigned)(state >> 33);
}

static uint8_t values[VALUES][VALUE_LEN + 1];

static void make_values(void) {
  static const char *const pages[] = {"/", "/cart", "/search", "/account", "/product"};
  for (int i = 0; i < VALUES; i++) {
    unsigned user = 10000 + draw() % 90000, page = draw() % 5, took = 100 + draw() % 900;
    int n = snprintf((char *)values[i], VALUE_LEN + 1,
                     "{\"id\":%d,\"user\":%u,\"event\":\"page_view\",\"page\":\"%s\",\"took_ms\":%u,\"ok\":true,\"pad\":\"",
                     1000000 + i, user, pages[page], took);
    memset(values[i] + n, ' ', (size_t)(VALUE_LEN - n));
    memcpy(values[i] + VALUE_LEN - 2, "\"}", 2);
  }
}

static uint64_t total;

/* Every byte of a value is looked at. */
static void look_at(const uint8_t *value, size_t len) {
  for (; len >= 8; value += 8, len -= 8) {
    uint64_t word;
    memcpy(&word, value, 8);
    total += word;
  }
  for (; len > 0; len--) {
    total += *value++;
  }
}

static ottla_client *client;
static ottla_producer *producer;
static ottla_consumer *consumer;

/* Takes completions until the client has no more now; counts records, and looks at where each is. */
static size_t drain(int64_t timeout_ms) {
  ottla_error *error = NULL;
  ottla_completion done[256];
  size_t told = 0, count = 0;
  do {
    check(ottla_poll(client, done, 256, timeout_ms, &count, &error), &error);
    for (size_t i = 0; i < count; i++) {
      if (done[i].error != NULL) {
        check(ottla_error_status(done[i].error), &done[i].error);
      }
      if (done[i].kind == OTTLA_COMPLETION_DELIVERY) {
        told += done[i].count;
        for (uint32_t k = 0; k < done[i].count; k++) {
          total += (uint64_t)(done[i].offset + k);
        }
      }
    }
    timeout_ms = 0;
  } while (count == 256);
  return told;
}

/* So many records in one call. */
static size_t produce(size_t records) {
  static ottla_record list[MANY];
  ottla_error *error = NULL;
  size_t sent = 0, told = 0;
  while (sent < records) {
    size_t n = records - sent < MANY ? records - sent : MANY;
    for (size_t i = 0; i < n; i++) {
      list[i].value = values[(sent + i) % VALUES];
      list[i].value_len = VALUE_LEN;
    }
    size_t at = 0;
    while (at < n) {
      size_t accepted = 0;
      ottla_status status = ottla_producer_send_batch(producer, TOPIC, list + at, n - at, 7, &accepted, &error);
      at += accepted;
      if (status == OTTLA_STATUS_BUFFER_FULL) {
        ottla_error_free(error);
        error = NULL;
        told += drain(-1);
      } else {
        check(status, &error);
      }
    }
    sent += n;
    told += drain(0);
  }
  check(ottla_producer_flush_wait(producer, -1, &error), &error);
  while (told < sent) {
    told += drain(-1);
  }
  return sent;
}

static size_t consume(size_t records) {
  ottla_error *error = NULL;
  size_t read = 0;
  while (read < records) {
    ottla_batch *batch = NULL;
    check(ottla_consumer_next(consumer, -1, &batch, &error), &error);
    ottla_record_view views[256];
    size_t n = 0, count = 0;
    do {
      check(ottla_batch_records(batch, n, views, 256, &count, &error), &error);
      for (size_t i = 0; i < count; i++) {
        look_at(views[i].value, views[i].value_len);
      }
      n += count;
    } while (count == 256);
    read += n;
    ottla_batch_free(batch);
  }
  return read;
}

int main(int argc, char **argv) {
  if (argc != 4) {
    fprintf(stderr, "usage: bench FIGURE RECORDS BOOTSTRAP\n");
    return 2;
  }
  cpu_set_t core;
  CPU_ZERO(&core);
  CPU_SET(0, &core);
  /* A measurement without is noisier, not wrong. */
  (void)sched_setaffinity(0, sizeof core, &core);
  size_t records = strtoul(argv[2], NULL, 10);
  make_values();

  ottla_error *error = NULL;
  ottla_client_options options = OTTLA_CLIENT_OPTIONS_INIT;
  options.bootstrap = argv[3];
  check(ottla_client_connect(&options, &client, &error), &error);
  size_t (*move)(size_t) = NULL;
  if (strcmp(argv[1], "produce") == 0) {
    ottla_producer_options plain = OTTLA_PRODUCER_OPTIONS_INIT;
    plain.compression = OTTLA_COMPRESSION_NONE;
    check(ottla_producer_new(client, &plain, &producer, &error), &error);
    move = produce;
  } else if (strncmp(argv[1], "consume", 7) == 0) {
    ottla_consumer_options reading = OTTLA_CONSUMER_OPTIONS_INIT;
    reading.topics = &TOPIC;
    reading.topic_count = 1;
    reading.start = OTTLA_START_EARLIEST;
    check(ottla_consumer_new(client, &reading, &consumer, &error), &error);
    move = consume;
  } else {
    fprintf(stderr, "nothing is called '%s'\n", argv[1]);
    return 2;
  }

  size_t warm_up = records / 10 < 10000 ? 10000 : records / 10 > 400000 ? 400000 : records / 10;
  move(warm_up);
  double cpu = seconds(CLOCK_PROCESS_CPUTIME_ID), begun = seconds(CLOCK_MONOTONIC);
  size_t moved = move(records);
  cpu = seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu;
  printf("{\"cpu_ns\":%.2f,\"allocations\":0,\"per_second\":%.0f,\"peak_mb\":%.1f,\"rss_mb\":%.1f}\n",
         cpu * 1e9 / (double)moved, (double)moved / (seconds(CLOCK_MONOTONIC) - begun), memory("VmHWM:"),
         memory("VmRSS:"));
  /* So that nothing of it is left out. */
  fprintf(stderr, total == 42 ? " " : "");
  ottla_producer_free(producer);
  ottla_consumer_free(consumer);
  ottla_client_free(client);
  return 0;
}
