module github.com/ottla-rs/ottla/examples/go

go 1.24

require github.com/ottla-rs/ottla/go-bindings v0.0.0

replace github.com/ottla-rs/ottla/go-bindings => ../../go-bindings
