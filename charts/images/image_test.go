package main

import (
	"archive/tar"
	"bytes"
	"context"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

var release = Release{Version: "1.2.3", Revision: "0123abcd", Created: time.Unix(1700000000, 0).UTC()}

// writeExecutable writes the smallest file that passes for a Linux executable with the given program headers.
func writeExecutable(t *testing.T, path string, machine elf.Machine, segments ...elf.ProgType) string {
	t.Helper()
	var file bytes.Buffer
	header := elf.Header64{Type: uint16(elf.ET_DYN), Machine: uint16(machine), Version: 1, Ehsize: 64, Phoff: 64, Phentsize: 56, Phnum: uint16(len(segments))}
	copy(header.Ident[:], elf.ELFMAG)
	header.Ident[elf.EI_CLASS], header.Ident[elf.EI_DATA], header.Ident[elf.EI_VERSION] = byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), 1
	if err := binary.Write(&file, binary.LittleEndian, header); err != nil {
		t.Fatal(err)
	}
	for _, kind := range segments {
		if err := binary.Write(&file, binary.LittleEndian, elf.Prog64{Type: uint32(kind)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(path, file.Bytes(), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// writeExecutables fills a folder with one static executable for each recipe.
func writeExecutables(t *testing.T) string {
	t.Helper()
	folder := t.TempDir()
	for _, recipe := range Recipes() {
		writeExecutable(t, filepath.Join(folder, recipe.Name), elf.EM_X86_64, elf.PT_LOAD)
	}
	return folder
}

func assemble(t *testing.T, machine elf.Machine) v1.Image {
	t.Helper()
	image, err := Recipes()[1].Assemble(writeExecutable(t, filepath.Join(t.TempDir(), "postroad-relay"), machine, elf.PT_LOAD), release)
	if err != nil {
		t.Fatal(err)
	}
	return image
}

func archive(t *testing.T, image v1.Image) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "postroad-relay.tar")
	if err := WriteArchive(path, "ghcr.io/postroad/postroad-relay:1.2.3", image); err != nil {
		t.Fatal(err)
	}
	return path
}

func digest(t *testing.T, image v1.Image) string {
	t.Helper()
	found, err := image.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return found.String()
}

func TestAnImageHoldsTheBinaryAndWhatAProcessExpects(t *testing.T) {
	contents := mutate.Extract(assemble(t, elf.EM_X86_64))
	defer contents.Close()
	found := map[string]string{}
	for reader := tar.NewReader(contents); ; {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		found[header.Name] = fmt.Sprintf("%o %d:%d", header.Mode, header.Uid, header.Gid)
	}
	expected := map[string]string{
		"data": "750 65532:65532", "tmp": "1777 0:0", "etc": "755 0:0",
		"etc/passwd": "644 0:0", "etc/group": "644 0:0", "etc/nsswitch.conf": "644 0:0", "postroad-relay": "755 0:0",
	}
	for path, facts := range expected {
		if found[path] != facts {
			t.Errorf("%s: %q, expected %q", path, found[path], facts)
		}
	}
	if len(found) != len(expected) {
		t.Errorf("the image holds %v", found)
	}
}

func TestAnImageRunsAsANumberedUserAndNamesItsRelease(t *testing.T) {
	config, err := assemble(t, elf.EM_AARCH64).ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if config.Config.User != "65532:65532" || strings.Join(config.Config.Entrypoint, " ") != "/postroad-relay" {
		t.Errorf("user %q, entry point %q", config.Config.User, config.Config.Entrypoint)
	}
	if config.OS != "linux" || config.Architecture != "arm64" {
		t.Errorf("platform %s/%s", config.OS, config.Architecture)
	}
	for label, value := range map[string]string{"title": "postroad-relay", "version": "1.2.3", "revision": "0123abcd", "licenses": "Apache-2.0"} {
		if got := config.Config.Labels["org.opencontainers.image."+label]; got != value {
			t.Errorf("label %s is %q, expected %q", label, got, value)
		}
	}
}

func TestTwoBuildsOfTheSameSourcesAreTheSameToTheByte(t *testing.T) {
	first, err := os.ReadFile(archive(t, assemble(t, elf.EM_X86_64)))
	if err != nil {
		t.Fatal(err)
	}
	second, err := os.ReadFile(archive(t, assemble(t, elf.EM_X86_64)))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(first, second) {
		t.Error("the archives differ")
	}
}

func TestAnArchiveGivesBackTheImageThatWasWritten(t *testing.T) {
	image := assemble(t, elf.EM_X86_64)
	read, err := ReadArchive(archive(t, image), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Image(read); err != nil {
		t.Error(err)
	}
	if digest(t, read) != digest(t, image) {
		t.Errorf("wrote %s, read %s", digest(t, image), digest(t, read))
	}
	if media, err := read.MediaType(); err != nil || media != types.OCIManifestSchema1 {
		t.Errorf("media type %s, %v", media, err)
	}
}

func TestDockerLoadFindsTheSameImageInTheArchive(t *testing.T) {
	image := assemble(t, elf.EM_X86_64)
	tag := name.MustParseReference("ghcr.io/postroad/postroad-relay:1.2.3").(name.Tag)
	loaded, err := tarball.ImageFromPath(archive(t, image), &tag)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Image(loaded); err != nil {
		t.Error(err)
	}
	expected, err := image.ConfigName()
	if err != nil {
		t.Fatal(err)
	}
	// The image ID that `docker images` shows is the digest of the configuration.
	if got, err := loaded.ConfigName(); err != nil || got != expected {
		t.Errorf("image ID %s, expected %s (%v)", got, expected, err)
	}
}

func TestAnyStaticProgramIsPackedUnderTheNameThatIsAskedFor(t *testing.T) {
	program := writeExecutable(t, filepath.Join(t.TempDir(), "pause"), elf.EM_X86_64, elf.PT_LOAD)
	out := filepath.Join(t.TempDir(), "pause.tar")
	if err := run(context.Background(), []string{"pack", "--binary", program, "--out", out, "postroad.test/pause:1"}); err != nil {
		t.Fatal(err)
	}
	tag := name.MustParseReference("postroad.test/pause:1").(name.Tag)
	packed, err := tarball.ImageFromPath(out, &tag)
	if err != nil {
		t.Fatal(err)
	}
	config, err := packed.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if strings.Join(config.Config.Entrypoint, " ") != "/pause" || config.Config.User != "65532:65532" || len(config.Config.Labels) != 0 {
		t.Errorf("entry point %q, user %q, labels %v", config.Config.Entrypoint, config.Config.User, config.Config.Labels)
	}
}

func TestWhatIsPushedIsWhatIsPulled(t *testing.T) {
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer server.Close()
	host := strings.TrimPrefix(server.URL, "http://")
	out := t.TempDir()
	if err := build([]string{"--binaries", writeExecutables(t), "--out", out, "--version", "1.2.3"}); err != nil {
		t.Fatal(err)
	}
	if err := push(context.Background(), []string{"--from", out, "--tag", "edge", host + "/team/"}); err != nil {
		t.Fatal(err)
	}
	for _, recipe := range Recipes() {
		reference, err := name.ParseReference(host + "/team/" + recipe.Name + ":edge")
		if err != nil {
			t.Fatal(err)
		}
		pulled, err := remote.Image(reference)
		if err != nil {
			t.Fatal(err)
		}
		if err := validate.Image(pulled); err != nil {
			t.Error(err)
		}
		built, err := ReadArchive(filepath.Join(out, recipe.Name+".tar"), t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		if digest(t, pulled) != digest(t, built) {
			t.Errorf("%s: built %s, pulled %s", recipe.Name, digest(t, built), digest(t, pulled))
		}
	}
}

func TestWhatCannotBecomeAnImageIsRefusedWithAReason(t *testing.T) {
	folder := t.TempDir()
	text := filepath.Join(folder, "text")
	if err := os.WriteFile(text, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for path, reason := range map[string]string{
		filepath.Join(folder, "nothing"): "does not exist",
		text:                             "not an ELF executable",
		writeExecutable(t, filepath.Join(folder, "dynamic"), elf.EM_X86_64, elf.PT_LOAD, elf.PT_INTERP): "crt-static",
		writeExecutable(t, filepath.Join(folder, "riscv"), elf.EM_RISCV, elf.PT_LOAD):                   "EM_RISCV",
	} {
		if _, err := Recipes()[0].Assemble(path, release); err == nil || !strings.Contains(err.Error(), reason) {
			t.Errorf("%s: %v, expected a text with %q", path, err, reason)
		}
	}
}

func TestAPushThatCannotWorkSaysWhatAndWhere(t *testing.T) {
	server := httptest.NewServer(nil)
	host := strings.TrimPrefix(server.URL, "http://")
	server.Close()
	path := archive(t, assemble(t, elf.EM_X86_64))
	for _, c := range []struct{ archive, reference, reason string }{
		{filepath.Join(t.TempDir(), "none.tar"), host + "/postroad-relay:1", "does not exist"},
		{path, "Not A Name:1", "no image name"},
		{path, host + "/postroad-relay:1", "cannot push " + host},
	} {
		if _, err := PushArchive(context.Background(), c.archive, c.reference); err == nil || !strings.Contains(err.Error(), c.reason) {
			t.Errorf("%s: %v, expected a text with %q", c.reference, err, c.reason)
		}
	}
}

func TestAWrongCallIsToldApartFromAFailure(t *testing.T) {
	for _, arguments := range [][]string{{}, {"bake"}, {"build"}, {"push", "--from", "x", "--tag", "y"}, {"build", "--sideways"}} {
		if err := run(context.Background(), arguments); !errors.Is(err, errUsage) {
			t.Errorf("%v: %v", arguments, err)
		}
	}
}
