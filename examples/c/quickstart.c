/* Sends three records, waits until they are written, and reads them back.
 *
 *   quickstart BOOTSTRAP [TOPIC]
 */
#include <ottla.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

int main(int argc, char **argv) {
  if (argc < 2) {
    fprintf(stderr, "usage: quickstart BOOTSTRAP [TOPIC]\n");
    return 2;
  }
  const char *topic = argc > 2 ? argv[2] : "quickstart";
  ottla_error *error = NULL;

  ottla_client_options options = OTTLA_CLIENT_OPTIONS_INIT;
  options.bootstrap = argv[1];
  ottla_client *client = NULL;
  check(ottla_client_connect(&options, &client, &error), &error);
  ottla_status status = ottla_create_topic_wait(client, topic, 3, -1, 30000, &error);
  if (status == OTTLA_STATUS_TOPIC_EXISTS) {
    ottla_error_free(error);
  } else {
    check(status, &error);
  }

  ottla_producer *producer = NULL;
  check(ottla_producer_new(client, NULL, &producer, &error), &error);
  const char *values[] = {"one", "two", "three"};
  ottla_record records[3] = {{0}};
  for (int i = 0; i < 3; i++) {
    records[i].value = (const uint8_t *)values[i];
    records[i].value_len = strlen(values[i]);
  }
  /* Accepted is not yet written: that is told by completions with this tag. */
  size_t accepted = 0;
  uint64_t tag = 1;
  check(ottla_producer_send_batch(producer, topic, records, 3, tag, &accepted, &error), &error);
  for (uint32_t told = 0; told < accepted;) {
    ottla_completion done;
    size_t count = 0;
    check(ottla_poll(client, &done, 1, -1, &count, &error), &error);
    if (count == 1 && done.kind == OTTLA_COMPLETION_DELIVERY && done.tag == tag) {
      check(ottla_error_status(done.error), &done.error);
      printf("%" PRIu32 " written to partition %" PRId32 " from offset %" PRId64 "\n", done.count,
             done.partition, done.offset);
      told += done.count;
    }
  }

  ottla_consumer_options reading = OTTLA_CONSUMER_OPTIONS_INIT;
  reading.topics = &topic;
  reading.topic_count = 1;
  ottla_consumer *consumer = NULL;
  check(ottla_consumer_new(client, &reading, &consumer, &error), &error);
  for (size_t seen = 0; seen < 3;) {
    ottla_batch *batch = NULL;
    check(ottla_consumer_next(consumer, -1, &batch, &error), &error);
    for (size_t i = 0; i < ottla_batch_len(batch); i++, seen++) {
      ottla_record_view record;
      check(ottla_batch_record(batch, i, &record, &error), &error);
      printf("%" PRId64 ": %.*s\n", record.offset, (int)record.value_len,
             (const char *)record.value);
    }
    ottla_batch_free(batch);
  }

  char *stats = NULL;
  check(ottla_client_stats_json(client, &stats, &error), &error);
  printf("%s\n", stats);
  ottla_string_free(stats);

  check(ottla_producer_close_wait(producer, 10000, &error), &error);
  ottla_producer_free(producer);
  ottla_consumer_free(consumer);
  ottla_client_free(client);
  return 0;
}
