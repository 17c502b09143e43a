/* Round trips through the Kafka cluster that OTTLA_KAFKA_BOOTSTRAP names. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "cluster.h"

int main(void) {
  const char *bootstrap = getenv("OTTLA_KAFKA_BOOTSTRAP");
  if (bootstrap == NULL) {
    fprintf(stderr, "set OTTLA_KAFKA_BOOTSTRAP to host:port of a Kafka cluster\n");
    return 2;
  }
  for (int32_t codec = OTTLA_COMPRESSION_NONE; codec <= OTTLA_COMPRESSION_ZSTD; codec++) {
    RUN(round_trip(bootstrap, codec));
  }
  return summary();
}
