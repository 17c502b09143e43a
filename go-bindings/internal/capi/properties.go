package capi

/*
#include <stdlib.h>
#include "library.h"
*/
import "C"

import (
	"unsafe"
)

// Owners of properties: ottla_owner.
const (
	OwnerClient   = int32(C.OTTLA_OWNER_CLIENT)
	OwnerProducer = int32(C.OTTLA_OWNER_PRODUCER)
	OwnerConsumer = int32(C.OTTLA_OWNER_CONSUMER)
)

// PropertiesJSON is what properties of other clients are here, as JSON; names and values in turn,
// without NUL.
func PropertiesJSON(owner int32, properties []string) (string, *Failure) {
	n := len(properties) / 2
	array := (*C.ottla_property)(C.calloc(C.size_t(n+1), C.size_t(unsafe.Sizeof(C.ottla_property{}))))
	defer C.free(unsafe.Pointer(array))
	list := unsafe.Slice(array, n)
	for i := range list {
		list[i].name, list[i].value = C.CString(properties[2*i]), C.CString(properties[2*i+1])
		defer C.free(unsafe.Pointer(list[i].name))
		defer C.free(unsafe.Pointer(list[i].value))
	}
	var text *C.char
	var e *C.ottla_error
	if f := outcome(C.ottla_properties_json(C.int32_t(owner), array, C.size_t(n), &text, &e), e); f != nil {
		return "", f
	}
	defer C.ottla_string_free(text)
	return C.GoString(text), nil
}
