package main

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// WriteArchive writes image as an OCI image layout in one tar file, which `ctr images import`, `podman load` and `crane` read,
// with the `manifest.json` beside it that `docker load` looks for; both name the same blobs.
//
// Durability: the file appears under its name when it is complete, or not at all.
func WriteArchive(path, reference string, image v1.Image) error {
	tag, err := name.NewTag(reference, name.StrictValidation)
	if err != nil {
		return fmt.Errorf("%q is no image name with a tag: %w", reference, err)
	}
	folder, err := os.MkdirTemp(filepath.Dir(path), ".archive-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(folder)
	if err := writeLayout(filepath.Join(folder, "layout"), tag, image); err != nil {
		return err
	}
	if err := packFolder(filepath.Join(folder, "layout"), filepath.Join(folder, "archive.tar")); err != nil {
		return err
	}
	return os.Rename(filepath.Join(folder, "archive.tar"), path)
}

func writeLayout(folder string, tag name.Tag, image v1.Image) error {
	written, err := layout.Write(folder, mutate.IndexMediaType(empty.Index, types.OCIImageIndex))
	if err != nil {
		return err
	}
	config, err := image.ConfigFile()
	if err != nil {
		return err
	}
	// The first is the specification's, the second what containerd names the image by.
	err = written.AppendImage(image,
		layout.WithPlatform(v1.Platform{OS: config.OS, Architecture: config.Architecture}),
		layout.WithAnnotations(map[string]string{
			"org.opencontainers.image.ref.name": tag.TagStr(),
			"io.containerd.image.name":          tag.Name(),
		}))
	if err != nil {
		return err
	}
	docker, err := dockerManifest(tag, image)
	if err != nil {
		return err
	}
	return written.WriteFile("manifest.json", docker, 0o644)
}

func dockerManifest(tag name.Tag, image v1.Image) ([]byte, error) {
	manifest, err := image.Manifest()
	if err != nil {
		return nil, err
	}
	descriptor := tarball.Descriptor{Config: blobPath(manifest.Config.Digest), RepoTags: []string{tag.Name()}}
	for _, layer := range manifest.Layers {
		descriptor.Layers = append(descriptor.Layers, blobPath(layer.Digest))
	}
	return json.Marshal(tarball.Manifest{descriptor})
}

func blobPath(digest v1.Hash) string { return path.Join("blobs", digest.Algorithm, digest.Hex) }

// packFolder writes the files of folder as a tar in lexical order, with nothing in it that depends on this machine.
func packFolder(folder, archive string) error {
	out, err := os.Create(archive)
	if err != nil {
		return err
	}
	defer out.Close()
	writer := tar.NewWriter(out)
	err = filepath.WalkDir(folder, func(file string, found os.DirEntry, err error) error {
		if err != nil || found.IsDir() {
			return err
		}
		content, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(folder, file)
		if err != nil {
			return err
		}
		header := &tar.Header{Name: filepath.ToSlash(relative), Mode: 0o644, Size: int64(len(content)), ModTime: time.Unix(0, 0), Format: tar.FormatUSTAR}
		if err := writer.WriteHeader(header); err != nil {
			return err
		}
		_, err = writer.Write(content)
		return err
	})
	return errors.Join(err, writer.Close(), out.Close())
}

// ReadArchive unpacks an archive of WriteArchive into folder and answers the one image in it, with the digest it was built
// with. The image reads its blobs from folder, which must outlive it.
func ReadArchive(path, folder string) (v1.Image, error) {
	if err := unpackArchive(path, folder); err != nil {
		return nil, err
	}
	index, err := layout.ImageIndexFromPath(folder)
	if err != nil {
		return nil, fmt.Errorf("%s is not an OCI image archive: %w", path, err)
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		return nil, fmt.Errorf("%s is not an OCI image archive: %w", path, err)
	}
	if len(manifest.Manifests) != 1 {
		return nil, fmt.Errorf("%s holds %d images instead of one", path, len(manifest.Manifests))
	}
	return index.Image(manifest.Manifests[0].Digest)
}

func unpackArchive(path, folder string) error {
	archive, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%s does not exist: run charts/images/build.sh first", path)
	} else if err != nil {
		return err
	}
	defer archive.Close()
	root, err := os.OpenRoot(folder)
	if err != nil {
		return err
	}
	defer root.Close()
	reader := tar.NewReader(archive)
	for {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("%s is not a readable tar archive: %w", path, err)
		}
		if err := unpackFile(root, header, reader); err != nil {
			return fmt.Errorf("%s: %s: %w", path, header.Name, err)
		}
	}
}

func unpackFile(root *os.Root, header *tar.Header, content io.Reader) error {
	if header.Typeflag != tar.TypeReg {
		return nil
	}
	if parent := path.Dir(strings.TrimPrefix(header.Name, "./")); parent != "." {
		if err := root.MkdirAll(parent, 0o755); err != nil {
			return err
		}
	}
	file, err := root.Create(header.Name)
	if err != nil {
		return err
	}
	_, err = io.Copy(file, content)
	return errors.Join(err, file.Close())
}
