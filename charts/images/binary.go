package main

import (
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
)

// inspectBinary answers the architecture (as OCI names it) of a static Linux executable and refuses everything that could not
// run in an image without other files.
func inspectBinary(path string) (string, error) {
	file, err := elf.Open(path)
	var notELF *elf.FormatError
	switch {
	case errors.Is(err, os.ErrNotExist):
		return "", fmt.Errorf("%s does not exist: build it first (charts/images/build.sh does both)", path)
	case errors.As(err, &notELF), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "", fmt.Errorf("%s is not an ELF executable: images are made of Linux binaries", path)
	case err != nil:
		return "", err
	}
	defer file.Close()
	for _, segment := range file.Progs {
		if segment.Type == elf.PT_INTERP {
			return "", fmt.Errorf("%s needs a dynamic loader, which an image from scratch lacks: build it with RUSTFLAGS='-C target-feature=+crt-static'", path)
		}
	}
	switch file.Machine {
	case elf.EM_X86_64:
		return "amd64", nil
	case elf.EM_AARCH64:
		return "arm64", nil
	}
	return "", fmt.Errorf("%s is for %s: images are made for x86_64 and aarch64", path, file.Machine)
}
