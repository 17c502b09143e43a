package capi

/*
#include <stdlib.h>
#include "library.h"
*/
import "C"

// Owners of properties: ottla_owner.
const (
	OwnerClient   = int32(C.OTTLA_OWNER_CLIENT)
	OwnerProducer = int32(C.OTTLA_OWNER_PRODUCER)
	OwnerConsumer = int32(C.OTTLA_OWNER_CONSUMER)
)

// PropertiesJSON is what properties of other clients are here, as JSON; names and values are without NUL.
func PropertiesJSON(owner int32, properties []Property) (string, *Failure) {
	var m memory
	defer func() { m.free() }()
	var text *C.char
	var e *C.ottla_error
	status := C.ottla_properties_json(C.int32_t(owner), m.properties(properties), C.size_t(len(properties)), &text, &e)
	if f := outcome(status, e); f != nil {
		return "", f
	}
	defer C.ottla_string_free(text)
	return C.GoString(text), nil
}
