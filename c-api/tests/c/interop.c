/* Sends the records of a file, or writes the records of a topic to one, for comparison with other
 * clients.
 *
 *   interop write BOOTSTRAP TOPIC FILE [none|lz4|gzip|snappy|zstd]
 *   interop read BOOTSTRAP TOPIC COUNT FILE
 *
 * The file, little-endian: for each record partition i32 (-1: spread), offset i64 (-1 when writing),
 * key_len i32 (-1: null), key, value_len i32 (-1: null), value, header_count u32, and for each
 * header name_len u32, name, value_len i32 (-1: null), value. */
#include <ottla.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_PART = 100 << 20, MAX_HEADERS = 100000, READ_TIMEOUT_MS = 120000 };

static void fail(const char *what) {
  fprintf(stderr, "interop: %s\n", what);
  exit(1);
}

static void check(ottla_status status, ottla_error **error, const char *what) {
  if (status != OTTLA_STATUS_OK) {
    fprintf(stderr, "interop: %s: %s: %s; %s\n", what, ottla_status_name(status),
            ottla_error_message(*error), ottla_error_advice(*error));
    ottla_error_free(*error);
    exit(1);
  }
}

static ottla_client *connect_to(const char *bootstrap) {
  ottla_client_options options = OTTLA_CLIENT_OPTIONS_INIT;
  ottla_client *client = NULL;
  ottla_error *error = NULL;
  options.bootstrap = bootstrap;
  check(ottla_client_connect(&options, &client, &error), &error, "connecting");
  return client;
}

/* --- writing */

/* One record of the file, and the memory that is used for all of them. */
struct entry {
  uint8_t *bytes;
  size_t len, capacity;
  ottla_header *headers;
  size_t *places; /* of name and value of each header in `bytes`, which moves while it grows */
  size_t header_capacity;
  ottla_record record;
};

static bool get(FILE *file, void *to, size_t len) { return fread(to, 1, len, file) == len; }

static uint32_t get_u32(FILE *file) {
  uint8_t b[4];
  if (!get(file, b, 4)) {
    fail("the file ends within a record");
  }
  return (uint32_t)b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
}

/* Appends `len` bytes of the file to the entry's; returns their place. */
static size_t get_bytes(FILE *file, struct entry *entry, int32_t len) {
  size_t at = entry->len;
  if (len > MAX_PART) {
    fail("a part of a record is larger than 100 MiB");
  }
  if (len <= 0) {
    return at;
  }
  if (entry->capacity - at < (size_t)len) {
    entry->capacity = 2 * entry->capacity + (size_t)len;
    entry->bytes = realloc(entry->bytes, entry->capacity);
    if (entry->bytes == NULL) {
      fail("out of memory");
    }
  }
  if (!get(file, entry->bytes + at, (size_t)len)) {
    fail("the file ends within a record");
  }
  entry->len += (size_t)len;
  return at;
}

/* Null for -1; for 0 something that is not null. */
static const uint8_t *part(const struct entry *entry, size_t at, int32_t len) {
  static const uint8_t nothing;
  return len < 0 ? NULL : len == 0 ? &nothing : entry->bytes + at;
}

static bool next_entry(FILE *file, struct entry *entry) {
  uint8_t first[4];
  size_t got = fread(first, 1, 4, file);
  if (got == 0 && feof(file)) {
    return false;
  }
  if (got != 4) {
    fail("the file ends within a record");
  }
  int32_t partition = (int32_t)((uint32_t)first[0] | (uint32_t)first[1] << 8 |
                                (uint32_t)first[2] << 16 | (uint32_t)first[3] << 24);
  get_u32(file); /* the offset */
  get_u32(file);
  entry->len = 0;
  int32_t key_len = (int32_t)get_u32(file);
  size_t key = get_bytes(file, entry, key_len);
  int32_t value_len = (int32_t)get_u32(file);
  size_t value = get_bytes(file, entry, value_len);
  uint32_t count = get_u32(file);
  if (count > MAX_HEADERS) {
    fail("a record has more than 100000 headers");
  }
  if (count > entry->header_capacity) {
    entry->header_capacity = count;
    entry->headers = realloc(entry->headers, count * sizeof *entry->headers);
    entry->places = realloc(entry->places, 2 * count * sizeof *entry->places);
    if (entry->headers == NULL || entry->places == NULL) {
      fail("out of memory");
    }
  }
  for (uint32_t i = 0; i < count; i++) {
    int32_t name_len = (int32_t)get_u32(file);
    entry->places[2 * i] = get_bytes(file, entry, name_len);
    int32_t len = (int32_t)get_u32(file);
    entry->places[2 * i + 1] = get_bytes(file, entry, len);
    entry->headers[i].name_len = name_len > 0 ? (size_t)name_len : 0;
    entry->headers[i].value_len = len > 0 ? (size_t)len : 0;
    entry->headers[i].value = part(entry, 0, len); /* for now: null or not */
  }
  for (uint32_t i = 0; i < count; i++) {
    ottla_header *h = &entry->headers[i];
    h->name = (const char *)part(entry, entry->places[2 * i], (int32_t)h->name_len);
    if (h->value != NULL) {
      h->value = part(entry, entry->places[2 * i + 1], (int32_t)h->value_len);
    }
  }
  entry->record = (ottla_record){
      .key = part(entry, key, key_len),
      .key_len = key_len > 0 ? (size_t)key_len : 0,
      .value = part(entry, value, value_len),
      .value_len = value_len > 0 ? (size_t)value_len : 0,
      .headers = entry->headers,
      .header_count = count,
      .partition = partition >= 0 ? partition : 0,
      .flags = partition >= 0 ? OTTLA_RECORD_PARTITION : 0,
  };
  return true;
}

/* Takes what has finished; counts deliveries and ends the program at the first that failed. Waits
 * for something if `timeout_ms` says so. Tells whether there was a completion of space. */
static bool take(ottla_client *client, int64_t timeout_ms, uint64_t *acknowledged) {
  ottla_completion done[64];
  size_t count = 0;
  ottla_error *error = NULL;
  bool space = false;
  check(ottla_poll(client, done, 64, timeout_ms, &count, &error), &error, "polling");
  for (size_t i = 0; i < count; i++) {
    check(ottla_error_status(done[i].error), &done[i].error, "a record was not written");
    if (done[i].kind == OTTLA_COMPLETION_DELIVERY) {
      *acknowledged += done[i].count;
    }
    space |= done[i].kind == OTTLA_COMPLETION_SPACE;
  }
  return space;
}

static int32_t compression(const char *codec) {
  static const struct {
    const char *name;
    int32_t compression;
  } codecs[] = {
      {"none", OTTLA_COMPRESSION_NONE},     {"lz4", OTTLA_COMPRESSION_LZ4},
      {"gzip", OTTLA_COMPRESSION_GZIP},     {"snappy", OTTLA_COMPRESSION_SNAPPY},
      {"zstd", OTTLA_COMPRESSION_ZSTD},
  };
  for (size_t i = 0; i < sizeof codecs / sizeof codecs[0]; i++) {
    if (strcmp(codec, codecs[i].name) == 0) {
      return codecs[i].compression;
    }
  }
  fail("the codec is none of none, lz4, gzip, snappy and zstd");
  return OTTLA_COMPRESSION_DEFAULT;
}

static void write_topic(const char *bootstrap, const char *topic, const char *path,
                        const char *codec) {
  FILE *file = fopen(path, "rb");
  if (file == NULL) {
    fail("the file cannot be opened");
  }
  ottla_client *client = connect_to(bootstrap);
  ottla_producer_options options = OTTLA_PRODUCER_OPTIONS_INIT;
  ottla_producer *producer = NULL;
  ottla_error *error = NULL;
  options.compression = compression(codec);
  /* Room for records that are a full MiB without what belongs to them. */
  options.max_record_size = 2 << 20;
  check(ottla_producer_new(client, &options, &producer, &error), &error, "making the producer");
  struct entry entry = {0};
  uint64_t sent = 0, acknowledged = 0;
  while (next_entry(file, &entry)) {
    for (;;) {
      size_t accepted = 0;
      ottla_status status = ottla_producer_send_batch(producer, topic, &entry.record, 1, sent,
                                                      &accepted, &error);
      if (status != OTTLA_STATUS_BUFFER_FULL) {
        check(status, &error, "sending");
        break;
      }
      ottla_error_free(error);
      while (!take(client, -1, &acknowledged)) {
      }
    }
    sent++;
    if (sent % 256 == 0) {
      take(client, 0, &acknowledged);
    }
  }
  check(ottla_producer_flush_wait(producer, -1, &error), &error, "flushing");
  while (acknowledged < sent) {
    take(client, -1, &acknowledged);
  }
  ottla_producer_free(producer);
  ottla_client_free(client);
  free(entry.bytes);
  free(entry.headers);
  free(entry.places);
  fclose(file);
  fprintf(stderr, "%" PRIu64 " records written and acknowledged\n", acknowledged);
}

/* --- reading */

static void put(FILE *file, const void *bytes, size_t len) {
  if (len > 0 && fwrite(bytes, 1, len, file) != len) {
    fail("the file cannot be written");
  }
}

static void put_u32(FILE *file, uint32_t n) {
  uint8_t b[4] = {(uint8_t)n, (uint8_t)(n >> 8), (uint8_t)(n >> 16), (uint8_t)(n >> 24)};
  put(file, b, 4);
}

static void put_nullable(FILE *file, const uint8_t *bytes, size_t len) {
  put_u32(file, bytes == NULL ? UINT32_MAX : (uint32_t)len);
  put(file, bytes, len);
}

static void read_topic(const char *bootstrap, const char *topic, uint64_t count, const char *path) {
  FILE *file = fopen(path, "wb");
  if (file == NULL) {
    fail("the file cannot be opened");
  }
  ottla_client *client = connect_to(bootstrap);
  ottla_consumer_options options = OTTLA_CONSUMER_OPTIONS_INIT;
  ottla_consumer *consumer = NULL;
  ottla_error *error = NULL;
  options.topics = &topic;
  options.topic_count = 1;
  options.start = OTTLA_START_EARLIEST;
  check(ottla_consumer_new(client, &options, &consumer, &error), &error, "making the consumer");
  ottla_header *headers = NULL;
  size_t capacity = 0;
  uint64_t seen = 0;
  while (seen < count) {
    ottla_batch *batch = NULL;
    ottla_batch_info info;
    check(ottla_consumer_next(consumer, READ_TIMEOUT_MS, &batch, &error), &error, "reading");
    if (batch == NULL) {
      fprintf(stderr, "interop: nothing more after %" PRIu64 " of %" PRIu64 " records\n", seen,
              count);
      exit(1);
    }
    check(ottla_batch_describe(batch, &info, &error), &error, "reading");
    for (size_t i = 0; i < info.record_count && seen < count; i++, seen++) {
      ottla_record_view r;
      size_t n = 0;
      check(ottla_batch_record(batch, i, &r, &error), &error, "reading");
      if (r.header_count > capacity) {
        capacity = r.header_count;
        headers = realloc(headers, capacity * sizeof *headers);
        if (headers == NULL) {
          fail("out of memory");
        }
      }
      check(ottla_batch_headers(batch, i, headers, capacity, &n, &error), &error, "reading");
      put_u32(file, (uint32_t)info.partition);
      put_u32(file, (uint32_t)r.offset);
      put_u32(file, (uint32_t)((uint64_t)r.offset >> 32));
      put_nullable(file, r.key, r.key_len);
      put_nullable(file, r.value, r.value_len);
      put_u32(file, (uint32_t)n);
      for (size_t h = 0; h < n; h++) {
        put_u32(file, (uint32_t)headers[h].name_len);
        put(file, headers[h].name, headers[h].name_len);
        put_nullable(file, headers[h].value, headers[h].value_len);
      }
    }
    ottla_batch_free(batch);
  }
  free(headers);
  ottla_consumer_free(consumer);
  ottla_client_free(client);
  if (fclose(file) != 0) {
    fail("the file cannot be written");
  }
  fprintf(stderr, "%" PRIu64 " records read\n", seen);
}

int main(int argc, char **argv) {
  if ((argc == 5 || argc == 6) && strcmp(argv[1], "write") == 0) {
    write_topic(argv[2], argv[3], argv[4], argc == 6 ? argv[5] : "lz4");
    return 0;
  }
  if (argc == 6 && strcmp(argv[1], "read") == 0) {
    read_topic(argv[2], argv[3], strtoull(argv[4], NULL, 10), argv[5]);
    return 0;
  }
  fprintf(stderr, "usage: interop write BOOTSTRAP TOPIC FILE [none|lz4|gzip|snappy|zstd]\n"
                  "       interop read BOOTSTRAP TOPIC COUNT FILE\n");
  return 2;
}
