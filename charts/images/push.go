package main

import (
	"context"
	"fmt"
	"os"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// PushArchive pushes the image of an archive to reference and answers `reference@digest`. Credentials are those of
// `docker login`; a registry on this machine or on a private address is also reached without TLS.
func PushArchive(ctx context.Context, archive, reference string) (string, error) {
	target, err := name.NewTag(reference, name.StrictValidation)
	if err != nil {
		return "", fmt.Errorf("%q is no image name: %w", reference, err)
	}
	folder, err := os.MkdirTemp("", "postroad-push-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(folder)
	image, err := ReadArchive(archive, folder)
	if err != nil {
		return "", err
	}
	digest, err := image.Digest()
	if err != nil {
		return "", err
	}
	if err := remote.Write(target, image, remote.WithContext(ctx), remote.WithAuthFromKeychain(authn.DefaultKeychain)); err != nil {
		return "", fmt.Errorf("cannot push %s: %w", reference, err)
	}
	return fmt.Sprintf("%s@%s", target.Name(), digest), nil
}
