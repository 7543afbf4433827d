package main

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"os"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// entry is one file or folder of the layer. Everything that could differ between two machines (times, owners' names, modes
// set by a umask) is left out or fixed.
type entry struct {
	path    string
	mode    int64
	owner   int
	content []byte // nil: a folder
}

// newLayer makes the image's only layer, with the binary at target.
func newLayer(binary, target string) (v1.Layer, error) {
	program, err := os.ReadFile(binary)
	if err != nil {
		return nil, err
	}
	content, err := packEntries(append(baseEntries(), entry{path: target[1:], mode: 0o755, content: program}))
	if err != nil {
		return nil, err
	}
	open := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil }
	return tarball.LayerFromOpener(open, tarball.WithMediaType(types.OCILayer), tarball.WithCompressedCaching)
}

func baseEntries() []entry {
	passwd := fmt.Sprintf("root:x:0:0:root:/:/sbin/nologin\npostroad:x:%d:%d:postroad:/:/sbin/nologin\n", userID, userID)
	group := fmt.Sprintf("root:x:0:\npostroad:x:%d:\n", userID)
	return []entry{
		// A folder of its own for mail, so that a volume that copies the image's content starts with the right owner.
		{path: "data/", mode: 0o750, owner: userID},
		{path: "etc/", mode: 0o755},
		{path: "etc/group", mode: 0o644, content: []byte(group)},
		// Without it the C library's order of lookups depends on its version; /etc/hosts must win over DNS.
		{path: "etc/nsswitch.conf", mode: 0o644, content: []byte("hosts: files dns\n")},
		{path: "etc/passwd", mode: 0o644, content: []byte(passwd)},
		{path: "tmp/", mode: 0o1777},
	}
}

func packEntries(entries []entry) ([]byte, error) {
	var packed bytes.Buffer
	writer := tar.NewWriter(&packed)
	for _, e := range entries {
		header := &tar.Header{Name: e.path, Mode: e.mode, Uid: e.owner, Gid: e.owner, Size: int64(len(e.content)), ModTime: time.Unix(0, 0), Typeflag: tar.TypeReg, Format: tar.FormatUSTAR}
		if e.content == nil {
			header.Typeflag = tar.TypeDir
		}
		if err := writer.WriteHeader(header); err != nil {
			return nil, err
		}
		if _, err := writer.Write(e.content); err != nil {
			return nil, err
		}
	}
	if err := writer.Close(); err != nil {
		return nil, err
	}
	return packed.Bytes(), nil
}
