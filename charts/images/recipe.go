package main

import (
	"fmt"
	"path/filepath"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

const (
	// defaultRepository is where the chart's values look for images unless told otherwise.
	defaultRepository = "ghcr.io/postroad"
	source            = "https://github.com/postroad/postroad"
	// userID is the non-root user of both images and the owner of /data; the chart and the relay's pods name the same.
	userID = 65532
)

// Recipe says what one image is; the binary has the image's name.
type Recipe struct {
	Name        string
	Description string
}

// Release says which state of the sources an image was made of.
type Release struct {
	Version string
	// Revision is the commit; empty when the work tree differs from it.
	Revision string
	// Created is a property of the sources and never the clock's time, so that a second build gives the same image.
	Created time.Time
}

// Recipes lists the images of this repository.
func Recipes() []Recipe {
	return []Recipe{
		{Name: "postroad-operator", Description: "Postroad's operator: turns RelayPool and Upstream resources into running mail relays"},
		{Name: "postroad-relay", Description: "Postroad's relay: accepts mail over SMTP, keeps it durably and forwards it to upstreams"},
	}
}

// DefaultReference is the name that the chart uses for the image when no value overrides it.
func (r Recipe) DefaultReference(version string) string {
	return fmt.Sprintf("%s/%s:%s", defaultRepository, r.Name, version)
}

// Assemble makes the image of a release.
//
// Errors: those of newImage.
func (r Recipe) Assemble(binary string, release Release) (v1.Image, error) {
	return newImage(binary, r.Name, r.labels(release), release.Created)
}

// Pack makes an image of any one static program, for tests: named by the program's file name, without labels.
//
// Errors: those of newImage.
func Pack(binary string) (v1.Image, error) {
	return newImage(binary, filepath.Base(binary), nil, time.Unix(0, 0).UTC())
}

// newImage makes the image: from scratch, one layer with the binary at /program and the few files that a process expects.
//
// Errors: the binary is missing, is not an ELF executable for an architecture that images are made for, or needs a dynamic
// loader (there is none in an image from scratch).
func newImage(binary, program string, labels map[string]string, created time.Time) (v1.Image, error) {
	architecture, err := inspectBinary(binary)
	if err != nil {
		return nil, err
	}
	layer, err := newLayer(binary, "/"+program)
	if err != nil {
		return nil, err
	}
	base := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	image, err := mutate.Append(base, mutate.Addendum{
		Layer:   layer,
		History: v1.History{Created: v1.Time{Time: created}, CreatedBy: "charts/images/build.sh", Comment: program},
	})
	if err != nil {
		return nil, err
	}
	config, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", architecture
	config.Created = v1.Time{Time: created}
	config.Config = runtimeConfig(program, labels)
	return mutate.ConfigFile(image, config)
}

func runtimeConfig(program string, labels map[string]string) v1.Config {
	return v1.Config{
		Entrypoint: []string{"/" + program},
		// Numbers, not a name: `runAsNonRoot` can only be checked against a number.
		User:       fmt.Sprintf("%d:%d", userID, userID),
		WorkingDir: "/",
		Env:        []string{"PATH=/"},
		Labels:     labels,
	}
}

func (r Recipe) labels(release Release) map[string]string {
	labels := map[string]string{
		"org.opencontainers.image.title":       r.Name,
		"org.opencontainers.image.description": r.Description,
		"org.opencontainers.image.version":     release.Version,
		"org.opencontainers.image.licenses":    "Apache-2.0",
		"org.opencontainers.image.source":      source,
		"org.opencontainers.image.url":         source,
	}
	if release.Revision != "" {
		labels["org.opencontainers.image.revision"] = release.Revision
	}
	return labels
}
