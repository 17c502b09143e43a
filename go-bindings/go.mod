module github.com/ottla-rs/ottla/go-bindings

go 1.24
