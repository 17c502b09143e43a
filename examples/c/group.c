/* Reads a topic as a member of a consumer group, until it is interrupted. Start it twice, and each reads half of it.
 *
 *   group BOOTSTRAP GROUP TOPIC
 */
#include <ottla.h>

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

static volatile sig_atomic_t interrupted;

static void interrupt(int number) {
  (void)number;
  interrupted = 1;
}

/* Every call returns a status and, if wanted, an error that says what to do. Where the error is, and not what it is: C may
 * look at the second argument before the call in the first. */
static void check(ottla_status status, ottla_error **error) {
  if (status == OTTLA_STATUS_OK) {
    return;
  }
  fprintf(stderr, "%s. %s\n", ottla_error_message(*error), ottla_error_advice(*error));
  ottla_error_free(*error);
  exit(1);
}

static void print_event(const ottla_event *event) {
  const ottla_partitions *partitions = ottla_event_partitions(event);
  const char *what = "comes";
  switch (ottla_event_kind_of(event)) {
  case OTTLA_EVENT_GIVING_UP:
    what = "goes"; /* Once the next is asked for: what is not finished now is read again elsewhere. */
    break;
  case OTTLA_EVENT_LOST:
    what = "is lost";
    break;
  }
  for (size_t i = 0; i < ottla_partitions_len(partitions); i++) {
    ottla_partition at;
    ottla_error *error = NULL;
    check(ottla_partitions_at(partitions, i, &at, &error), &error);
    printf("%s[%" PRId32 "] %s\n", at.topic, at.partition, what);
  }
}

int main(int argc, char **argv) {
  if (argc < 4) {
    fprintf(stderr, "usage: group BOOTSTRAP GROUP TOPIC\n");
    return 2;
  }
  const char *topic = argv[3];
  ottla_error *error = NULL;
  signal(SIGINT, interrupt);
  signal(SIGTERM, interrupt);

  ottla_client_options options = OTTLA_CLIENT_OPTIONS_INIT;
  options.bootstrap = argv[1];
  ottla_client *client = NULL;
  check(ottla_client_connect(&options, &client, &error), &error);

  ottla_consumer_options reading = OTTLA_CONSUMER_OPTIONS_INIT;
  reading.topics = &topic;
  reading.topic_count = 1;
  reading.group = argv[2];
  ottla_consumer *consumer = NULL;
  check(ottla_consumer_new(client, &reading, &consumer, &error), &error);

  while (!interrupted) {
    ottla_batch *batch = NULL;
    ottla_event *event = NULL;
    /* Asking says that the batch before is done. */
    ottla_status status = ottla_consumer_next_event(consumer, 200, &batch, &event, &error);
    if (status != OTTLA_STATUS_OK) {
      /* Tried again as long as it is asked for. */
      fprintf(stderr, "%s\n", ottla_error_message(error));
      if (ottla_error_is_fatal(error)) {
        check(status, &error);
      }
      ottla_error_free(error);
      continue;
    }
    print_event(event);
    ottla_event_free(event);
    for (size_t i = 0; i < ottla_batch_len(batch) && !interrupted; i++) {
      ottla_record_view record;
      check(ottla_batch_record(batch, i, &record, &error), &error);
      /* Those before it are done: an interrupt leaves undone no more than this one. */
      ottla_batch_reached(batch, record.offset);
      printf("%" PRId64 ": %.*s\n", record.offset, (int)record.value_len, (const char *)record.value);
    }
    ottla_batch_free(batch);
  }

  /* Commits what is done, and leaves, so that others have the partitions at once. */
  check(ottla_consumer_leave_wait(consumer, -1, &error), &error);
  ottla_consumer_free(consumer);
  ottla_client_free(client);
  return 0;
}
