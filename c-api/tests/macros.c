/* What the header has besides types and functions, in every standard of C and in C++: compiled, not run. */
#include <ottla.h>

#if OTTLA_VERSION_NUMBER != (OTTLA_VERSION_MAJOR * 1000 + OTTLA_VERSION_MINOR) * 1000 + OTTLA_VERSION_PATCH
#error "the numbers of the version do not agree"
#endif

/* Declared before: nobody else does. */
size_t sizes(const char **version);

size_t sizes(const char **version) {
  ottla_client_options client = OTTLA_CLIENT_OPTIONS_INIT;
  ottla_tls_options tls = OTTLA_TLS_OPTIONS_INIT;
  ottla_sasl_options sasl = OTTLA_SASL_OPTIONS_INIT;
  ottla_oauth_options oauth = OTTLA_OAUTH_OPTIONS_INIT;
  ottla_token token = OTTLA_TOKEN_INIT;
  ottla_producer_options producer = OTTLA_PRODUCER_OPTIONS_INIT;
  ottla_consumer_options consumer = OTTLA_CONSUMER_OPTIONS_INIT;
  ottla_test_broker_options broker = OTTLA_TEST_BROKER_OPTIONS_INIT;
  *version = OTTLA_VERSION;
  return client.size + tls.size + sasl.size + oauth.size + token.size + producer.size + consumer.size + broker.size;
}
