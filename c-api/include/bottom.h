#ifndef OTTLA_CLIENT_OPTIONS_INIT
/* Start values of the option structs: all defaults. */
#ifdef __cplusplus
/* C++ before C++20 has no members by name in a list of start values. */
template <typename Options>
inline Options ottla_sized_options() {
  Options options = Options();
  options.size = sizeof(Options);
  return options;
}
#define OTTLA_CLIENT_OPTIONS_INIT (ottla_sized_options<ottla_client_options>())
#define OTTLA_TLS_OPTIONS_INIT (ottla_sized_options<ottla_tls_options>())
#define OTTLA_SASL_OPTIONS_INIT (ottla_sized_options<ottla_sasl_options>())
#define OTTLA_OAUTH_OPTIONS_INIT (ottla_sized_options<ottla_oauth_options>())
#define OTTLA_TOKEN_INIT (ottla_sized_options<ottla_token>())
#define OTTLA_PRODUCER_OPTIONS_INIT (ottla_sized_options<ottla_producer_options>())
#define OTTLA_CONSUMER_OPTIONS_INIT (ottla_sized_options<ottla_consumer_options>())
#define OTTLA_TEST_BROKER_OPTIONS_INIT (ottla_sized_options<ottla_test_broker_options>())
#else
#define OTTLA_CLIENT_OPTIONS_INIT {.size = sizeof(ottla_client_options)}
#define OTTLA_TLS_OPTIONS_INIT {.size = sizeof(ottla_tls_options)}
#define OTTLA_SASL_OPTIONS_INIT {.size = sizeof(ottla_sasl_options)}
#define OTTLA_OAUTH_OPTIONS_INIT {.size = sizeof(ottla_oauth_options)}
#define OTTLA_TOKEN_INIT {.size = sizeof(ottla_token)}
#define OTTLA_PRODUCER_OPTIONS_INIT {.size = sizeof(ottla_producer_options)}
#define OTTLA_CONSUMER_OPTIONS_INIT {.size = sizeof(ottla_consumer_options)}
#define OTTLA_TEST_BROKER_OPTIONS_INIT {.size = sizeof(ottla_test_broker_options)}
#endif
#endif
