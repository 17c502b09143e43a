/* The library in a process that is not its own: signals and threads belong to the host. */
#include "process.h"

#include <dirent.h>

/* Writes more than any socket holds, to a broker that is cut off again and again meanwhile. */
static void write_to_a_broker_that_closes(void) {
  enum { VALUE = 200000, ROUNDS = 30, RECORDS = 40 };
  signal(SIGPIPE, SIG_DFL);
  ottla_test_broker *broker = start();
  ottla_client *client = connect_to(ottla_test_broker_bootstrap(broker));
  ottla_producer *producer = produce(client, 0);
  uint8_t *value = calloc(1, VALUE);
  for (int round = 0; round < ROUNDS; round++) {
    for (int i = 0; i < RECORDS; i++) {
      ottla_record record = {0};
      size_t accepted = 0;
      record.value = value;
      record.value_len = VALUE;
      ottla_error *error = NULL;
      ottla_status status =
          ottla_producer_send_batch(producer, "t", &record, 1, 1, &accepted, &error);
      CHECK(status == OTTLA_STATUS_OK || status == OTTLA_STATUS_BUFFER_FULL);
      ottla_error_free(error);
      if (i == RECORDS / 2) {
        OK(ottla_test_broker_stop_broker(broker, 1, 0, E));
        OK(ottla_test_broker_start_broker(broker, 1, E));
      }
    }
  }
  OK(ottla_producer_flush_wait(producer, PATIENCE_MS, E));
  free(value);
  ottla_producer_free(producer);
  ottla_client_free(client);
  ottla_test_broker_free(broker);
}

/* The threads of the library in this process, by their names; of how many the signals in `wanted`
 * are not all blocked. */
static int threads(uint64_t wanted, int *unblocked) {
  int found = 0;
  *unblocked = 0;
  DIR *tasks = opendir("/proc/self/task");
  if (tasks == NULL) {
    return 0;
  }
  for (struct dirent *task; (task = readdir(tasks)) != NULL;) {
    char path[300], line[300];
    snprintf(path, sizeof path, "/proc/self/task/%s/status", task->d_name);
    FILE *status = fopen(path, "r");
    if (status == NULL) {
      continue;
    }
    int ours = 0;
    while (fgets(line, sizeof line, status) != NULL) {
      unsigned long long mask;
      if (strncmp(line, "Name:\tottla", 11) == 0) {
        ours = 1;
        found++;
      }
      if (ours && sscanf(line, "SigBlk: %llx", &mask) == 1 && (mask & wanted) != wanted) {
        (*unblocked)++;
      }
    }
    fclose(status);
  }
  closedir(tasks);
  return found;
}

/* Every signal that can be blocked and is not the C library's own. */
static uint64_t all_signals(void) {
  uint64_t all = 0;
  for (int number = 1; number <= 64; number++) {
    if (number != SIGKILL && number != SIGSTOP && (number < 32 || number >= SIGRTMIN)) {
      all |= (uint64_t)1 << (number - 1);
    }
  }
  return all;
}

/* No signal of the host is ever taken by a thread of the library; the host's own mask stays. */
static void signals_are_the_hosts(void) {
  enum { VALUE = 100000, RECORDS = 20 };
  sigset_t before, after;
  pthread_sigmask(SIG_SETMASK, NULL, &before);
  ottla_test_broker *broker = start();
  ottla_client *client = connect_to(ottla_test_broker_bootstrap(broker));
  ottla_producer_options options = OTTLA_PRODUCER_OPTIONS_INIT;
  ottla_producer *producer = NULL;
  /* Compressed at length, and so beside the caller and the engine. */
  options.compression = OTTLA_COMPRESSION_ZSTD;
  options.compression_level = 19;
  OK(ottla_producer_new(client, &options, &producer, E));
  uint8_t *value = malloc(VALUE);
  for (int i = 0; i < VALUE; i++) {
    value[i] = (uint8_t)((i * 2654435761u) >> 13);
  }
  for (int i = 0; i < RECORDS; i++) {
    ottla_record record = {0};
    size_t accepted = 0;
    record.value = value;
    record.value_len = VALUE;
    OK(ottla_producer_send_batch(producer, "t", &record, 1, 1, &accepted, E));
  }
  OK(ottla_producer_flush_wait(producer, PATIENCE_MS, E));
  int unblocked = 0;
  /* The engine's, the embedded brokers', and one that compressed. */
  CHECK(threads(all_signals(), &unblocked) >= 3);
  CHECK(unblocked == 0);
  pthread_sigmask(SIG_SETMASK, NULL, &after);
  for (int number = 1; number < 65; number++) {
    CHECK(sigismember(&before, number) == sigismember(&after, number));
  }
  free(value);
  ottla_producer_free(producer);
  ottla_client_free(client);
  ottla_test_broker_free(broker);
}

/* A host's thread with little stack: musl gives 128 KiB, others less. */
static void little_stack_will_do(void) {
  pthread_attr_t attributes;
  pthread_t thread;
  pthread_attr_init(&attributes);
  CHECK(pthread_attr_setstacksize(&attributes, 256 << 10) == 0);
  CHECK(pthread_create(&thread, &attributes, there_and_back, NULL) == 0);
  CHECK(pthread_join(thread, NULL) == 0);
  pthread_attr_destroy(&attributes);
}

static void survives(void (*test)(void)) {
  int end = in_child(test);
  CHECK(end == 0);
  if (end != 0) {
    fprintf(stderr, "the child ended with %d\n", end);
  }
}

int main(void) {
  RUN(survives(write_to_a_broker_that_closes));
  RUN(survives(signals_are_the_hosts));
  RUN(survives(little_stack_will_do));
  return summary();
}
