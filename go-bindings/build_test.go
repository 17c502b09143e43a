package ottla_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	ottla "github.com/ottla-rs/ottla/go-bindings"
)

// A build that can not work says in one sentence what to do, not that "build constraints exclude all
// Go files".
func TestABuildWithoutCgoSaysWhatToDo(t *testing.T) {
	ottla.Limit(t)
	cgo, platform := "build with CGO_ENABLED=1", "runs on Linux, macOS and other Unix systems"
	for _, tt := range []struct {
		name string
		args []string
		env  []string
		want string
	}{
		{"cgo is off", []string{"build", "./..."}, []string{"CGO_ENABLED=0"}, cgo},
		{"vet", []string{"vet", "./..."}, []string{"CGO_ENABLED=0"}, cgo},
		// Nothing but this package: a whole standard library is not built for the test's sake.
		{"another architecture", []string{"build", "./internal/capi"}, []string{"GOOS=linux", "GOARCH=s390x"}, cgo},
		{"another system", []string{"build", "./internal/capi"}, []string{"GOOS=darwin", "GOARCH=arm64"}, cgo},
		{"no descriptors", []string{"build", "./internal/capi"}, []string{"GOOS=windows", "GOARCH=amd64"}, platform},
		{"no compiler", []string{"build", "./internal/capi"}, []string{"PATH=" + onlyGo(t)}, cgo},
	} {
		t.Run(tt.name, func(t *testing.T) {
			command := exec.Command("go", tt.args...)
			for _, variable := range os.Environ() {
				if !strings.HasPrefix(variable, "CGO_ENABLED=") && !strings.HasPrefix(variable, "CC=") {
					command.Env = append(command.Env, variable)
				}
			}
			command.Env = append(command.Env, tt.env...)
			out, err := command.CombinedOutput()
			said := string(out)
			if err == nil || !strings.Contains(said, tt.want) || strings.Contains(said, "build constraints exclude") {
				t.Errorf("%v: %s", err, said)
			}
			// The heading, and the sentence.
			if lines := strings.Split(strings.TrimSpace(said), "\n"); len(lines) > 3 {
				t.Errorf("%d lines:\n%s", len(lines), said)
			}
		})
	}
}

// onlyGo is a folder for a search path with no compiler on it.
func onlyGo(t *testing.T) string {
	t.Helper()
	program, err := exec.LookPath("go")
	if err != nil {
		t.Fatal(err)
	}
	root, err := exec.Command(program, "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(strings.TrimSpace(string(root)), "bin")
}

// The library was not laid out.
func TestABuildWithoutTheLibrarySaysWhereItComesFrom(t *testing.T) {
	ottla.Limit(t)
	module := t.TempDir()
	internal := filepath.Join(module, "go-bindings/internal")
	if err := os.MkdirAll(internal, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(filepath.Join(internal, "capi"), os.DirFS("internal/capi")); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("go.mod")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(module, "go-bindings/go.mod"), text, 0o644); err != nil {
		t.Fatal(err)
	}
	command := exec.Command("go", "build", "./...")
	command.Dir = filepath.Join(module, "go-bindings")
	command.Env = append(os.Environ(), "CGO_ENABLED=1", "CGO_CFLAGS=", "GOFLAGS=")
	out, err := command.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "cargo xtask dist") {
		t.Errorf("%v: %s", err, out)
	}
}

// Go does not look at what is linked: the stamp of the archive is what tells it that there is another one, down to the
// program.
func TestAnotherArchiveIsAnotherPackage(t *testing.T) {
	ottla.Limit(t)
	module := t.TempDir()
	if err := os.CopyFS(module, os.DirFS("internal/capi")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(module, "go.mod"), []byte("module stamped\n\ngo 1.24\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	tests, err := filepath.Glob(filepath.Join(module, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range tests {
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
	}
	dist, err := filepath.Abs("../target/ottla-dist/include")
	if err != nil {
		t.Fatal(err)
	}
	// What a program is linked from is named by the content of the packages: the second half of a build's name.
	content := func(stamp string) string {
		t.Helper()
		text := "#define OTTLA_ARCHIVE \"" + stamp + "\"\n"
		if err := os.WriteFile(filepath.Join(module, "archive.h"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		command := exec.Command("go", "list", "-export", "-f", "{{.BuildID}}", ".")
		command.Dir = module
		command.Env = append(os.Environ(), "CGO_ENABLED=1", "CGO_CFLAGS=-I"+dist, "GOFLAGS=")
		out, err := command.Output()
		if err != nil {
			t.Fatal(err)
		}
		id := strings.TrimSpace(string(out))
		return id[strings.LastIndexByte(id, '/')+1:]
	}
	one, other, again := content("one"), content("other"), content("one")
	if one == other || one != again {
		t.Errorf("%s with one archive, %s with another, %s with the first again", one, other, again)
	}
}
