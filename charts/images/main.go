// Command images packs the static binaries of this repository into container images, with no daemon and no registry, and
// pushes them to a registry for those who have one. build.sh and push.sh beside it are how people call it; it compiles
// nothing itself.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const usage = `Usage:
  images build --binaries DIR --out DIR --version VERSION [--revision COMMIT] [--created SECONDS]
      packs DIR/postroad-operator and DIR/postroad-relay into OUT/<name>.tar, one OCI image archive each
  images push --from DIR --tag TAG REGISTRY
      pushes the archives in DIR to REGISTRY/<name>:TAG and prints each pushed reference with its digest
  images pack --binary FILE --out ARCHIVE REFERENCE
      packs any one static program into an OCI image archive named REFERENCE, for tests
`

// errUsage marks a call that makes no sense; main answers it with the usage text and exit code 2.
var errUsage = errors.New("wrong usage")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(ctx, os.Args[1:])
	switch {
	case err == nil:
	case errors.Is(err, errUsage):
		fmt.Fprintf(os.Stderr, "error: %v\n\n%s", err, usage)
		os.Exit(2)
	default:
		fmt.Fprintf(os.Stderr, "error: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, arguments []string) error {
	if len(arguments) == 0 {
		return fmt.Errorf("%w: say build, push or pack", errUsage)
	}
	switch arguments[0] {
	case "build":
		return build(arguments[1:])
	case "push":
		return push(ctx, arguments[1:])
	case "pack":
		return pack(arguments[1:])
	}
	return fmt.Errorf("%w: no command %q", errUsage, arguments[0])
}

func build(arguments []string) error {
	flags := flag.NewFlagSet("build", flag.ContinueOnError)
	flags.SetOutput(io.Discard) // main says it, once
	binaries := flags.String("binaries", "", "")
	out := flags.String("out", "", "")
	version := flags.String("version", "", "")
	revision := flags.String("revision", "", "")
	created := flags.Int64("created", 0, "")
	if err := flags.Parse(arguments); err != nil {
		return fmt.Errorf("%w: %v", errUsage, err)
	}
	if *binaries == "" || *out == "" || *version == "" || flags.NArg() > 0 {
		return fmt.Errorf("%w: build needs --binaries, --out and --version and nothing else", errUsage)
	}
	if err := os.MkdirAll(*out, 0o755); err != nil {
		return err
	}
	release := Release{Version: *version, Revision: *revision, Created: time.Unix(*created, 0).UTC()}
	for _, recipe := range Recipes() {
		image, err := recipe.Assemble(filepath.Join(*binaries, recipe.Name), release)
		if err != nil {
			return err
		}
		archive := filepath.Join(*out, recipe.Name+".tar")
		reference := recipe.DefaultReference(release.Version)
		if err := WriteArchive(archive, reference, image); err != nil {
			return err
		}
		digest, err := image.Digest()
		if err != nil {
			return err
		}
		fmt.Printf("%s  %s@%s\n", archive, reference, digest)
	}
	return nil
}

func push(ctx context.Context, arguments []string) error {
	flags := flag.NewFlagSet("push", flag.ContinueOnError)
	flags.SetOutput(io.Discard) // main says it, once
	from := flags.String("from", "", "")
	tag := flags.String("tag", "", "")
	if err := flags.Parse(arguments); err != nil {
		return fmt.Errorf("%w: %v", errUsage, err)
	}
	if *from == "" || *tag == "" || flags.NArg() != 1 {
		return fmt.Errorf("%w: push needs --from, --tag and one REGISTRY", errUsage)
	}
	registry := strings.TrimSuffix(flags.Arg(0), "/")
	for _, recipe := range Recipes() {
		pushed, err := PushArchive(ctx, filepath.Join(*from, recipe.Name+".tar"), registry+"/"+recipe.Name+":"+*tag)
		if err != nil {
			return err
		}
		fmt.Println(pushed)
	}
	return nil
}

func pack(arguments []string) error {
	flags := flag.NewFlagSet("pack", flag.ContinueOnError)
	flags.SetOutput(io.Discard) // main says it, once
	binary := flags.String("binary", "", "")
	out := flags.String("out", "", "")
	if err := flags.Parse(arguments); err != nil {
		return fmt.Errorf("%w: %v", errUsage, err)
	}
	if *binary == "" || *out == "" || flags.NArg() != 1 {
		return fmt.Errorf("%w: pack needs --binary, --out and one REFERENCE", errUsage)
	}
	image, err := Pack(*binary)
	if err != nil {
		return err
	}
	return WriteArchive(*out, flags.Arg(0), image)
}
