/* The library in a process that is not its own: signals, threads and forks belong to the host. */
#include "cluster.h"

#include <dirent.h>
#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>

static ottla_test_broker *start(void) {
  ottla_test_broker_options options = OTTLA_TEST_BROKER_OPTIONS_INIT;
  ottla_test_broker *broker = NULL;
  options.brokers = 1;
  OK(ottla_test_broker_new(&options, &broker, E));
  if (broker == NULL) {
    exit(summary());
  }
  OK(ottla_test_broker_create_topic(broker, "t", 3, 1, E));
  return broker;
}

static ottla_producer *produce(ottla_client *client, int64_t linger_ms) {
  ottla_producer_options options = OTTLA_PRODUCER_OPTIONS_INIT;
  ottla_producer *producer = NULL;
  options.compression = OTTLA_COMPRESSION_NONE;
  options.linger_ms = linger_ms;
  OK(ottla_producer_new(client, &options, &producer, E));
  return producer;
}

/* What became of a child: its exit status, or minus the signal that ended it. */
static int end_of(pid_t child) {
  int status = 0;
  if (waitpid(child, &status, 0) != child) {
    return 1000;
  }
  return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

/* Runs a test in a child, whose checks are its own. */
static int in_child(void (*test)(void)) {
  pid_t child = fork();
  if (child == 0) {
    passed = failed = tests_failed = 0;
    test();
    fflush(NULL);
    _exit(failed == 0 ? 0 : 1);
  }
  return end_of(child);
}

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
static void *with_little_stack(void *nothing) {
  ottla_test_broker *broker = start();
  ottla_client *client = connect_to(ottla_test_broker_bootstrap(broker));
  ottla_producer *producer = produce(client, 0);
  ottla_record record = {0};
  size_t accepted = 0;
  OK(ottla_producer_send_batch(producer, "t", &record, 1, 1, &accepted, E));
  OK(ottla_producer_flush_wait(producer, PATIENCE_MS, E));
  ottla_consumer *consumer = consume(client, "t", 1);
  ottla_batch *batch = NULL;
  OK(ottla_consumer_next(consumer, PATIENCE_MS, &batch, E));
  CHECK(batch != NULL);
  ottla_batch_free(batch);
  ottla_consumer_free(consumer);
  ottla_producer_free(producer);
  ottla_client_free(client);
  ottla_test_broker_free(broker);
  return nothing;
}

static void little_stack_will_do(void) {
  pthread_attr_t attributes;
  pthread_t thread;
  pthread_attr_init(&attributes);
  CHECK(pthread_attr_setstacksize(&attributes, 256 << 10) == 0);
  CHECK(pthread_create(&thread, &attributes, with_little_stack, NULL) == 0);
  CHECK(pthread_join(thread, NULL) == 0);
  pthread_attr_destroy(&attributes);
}

static ottla_client *inherited;
static ottla_producer *inherited_producer;
static ottla_consumer *inherited_consumer;

/* Every call of a handle that was made before the fork, which nobody announced. */
static void a_child_is_told(void) {
  ottla_record record = {0};
  size_t accepted = 9, count = 9;
  ottla_completion done;
  ottla_batch *batch = NULL;
  alarm(PATIENCE_MS / 1000);
  FAILS(OTTLA_STATUS_FORKED,
        ottla_producer_send_batch(inherited_producer, "t", &record, 1, 1, &accepted, E));
  CHECK(accepted == 0);
  FAILS(OTTLA_STATUS_FORKED, ottla_poll(inherited, &done, 1, -1, &count, E));
  FAILS(OTTLA_STATUS_FORKED, ottla_producer_flush_wait(inherited_producer, -1, E));
  FAILS(OTTLA_STATUS_FORKED, ottla_producer_close_wait(inherited_producer, -1, E));
  FAILS(OTTLA_STATUS_FORKED, ottla_producer_flush(inherited_producer, 7, E));
  FAILS(OTTLA_STATUS_FORKED, ottla_producer_close(inherited_producer, 1000, 8, E));
  FAILS(OTTLA_STATUS_FORKED, ottla_consumer_next(inherited_consumer, -1, &batch, E));
  FAILS(OTTLA_STATUS_FORKED, ottla_consumer_try_next(inherited_consumer, &batch, E));
  FAILS(OTTLA_STATUS_FORKED, ottla_create_topic_wait(inherited, "u", 1, 1, -1, E));
  FAILS(OTTLA_STATUS_FORKED, ottla_create_topic(inherited, "u", 1, 1, 9, E));
  FAILS(OTTLA_STATUS_FORKED, ottla_consumer_close(inherited_consumer, E));
  FAILS(OTTLA_STATUS_FORKED, ottla_client_close(inherited, E));
  ottla_consumer_free(inherited_consumer);
  ottla_producer_free(inherited_producer);
  ottla_client_free(inherited);
  /* What is made here works here. */
  with_little_stack(NULL);
}

static void forks_are_seen(void) {
  enum { CHILDREN = 20, RECORDS = 200 };
  ottla_test_broker *broker = start();
  inherited = connect_to(ottla_test_broker_bootstrap(broker));
  inherited_producer = produce(inherited, 5);
  inherited_consumer = consume(inherited, "t", 1);
  int ends[CHILDREN];
  size_t sent = 0;
  /* In the middle of its work, whatever locks its threads hold. */
  for (int child = 0; child < CHILDREN; child++) {
    for (int i = 0; i < RECORDS; i++) {
      ottla_record record = {0};
      size_t accepted = 0;
      OK(ottla_producer_send_batch(inherited_producer, "t", &record, 1, 1, &accepted, E));
      sent += accepted;
    }
    ends[child] = in_child(a_child_is_told);
    CHECK(ends[child] == 0);
  }
  /* The parent has lost nothing by it. */
  OK(ottla_producer_flush_wait(inherited_producer, PATIENCE_MS, E));
  size_t seen = 0;
  while (seen < sent) {
    ottla_batch *batch = NULL;
    OK(ottla_consumer_next(inherited_consumer, PATIENCE_MS, &batch, E));
    CHECK(batch != NULL);
    if (batch == NULL) {
      break;
    }
    seen += ottla_batch_len(batch);
    ottla_batch_free(batch);
  }
  CHECK(seen == sent);
  ottla_consumer_free(inherited_consumer);
  ottla_producer_free(inherited_producer);
  ottla_client_free(inherited);
  ottla_test_broker_free(broker);
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
  RUN(forks_are_seen());
  return summary();
}
