// SPDX-License-Identifier: Apache-2.0

package services

import (
	"path/filepath"
	"strings"

	"github.com/clipper-serving/clipper/abstraction/repository"
	"github.com/clipper-serving/clipper/abstraction/repository/folder"
	"github.com/clipper-serving/clipper/abstraction/repository/s3"
	"github.com/clipper-serving/clipper/frontend/naturaljson"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/app"
)

// RepositoryConfig says where models are found that are to be deployed.
type RepositoryConfig struct {
	Location string            `name:"model-repository" config:"global" placeholder:"PATH" help:"Folder, or s3://BUCKET/PREFIX, with a folder for each model and version, which are kept deployed."`
	Cache    string            `name:"model-repository-cache" config:"global" placeholder:"DIR" help:"Folder for the files from a bucket. Default: model-repository in the data directory."`
	Looks    repository.Config `embed:""`
}

// maxSampleElements bounds the tensors of a warm-up sample.
const maxSampleElements = 1 << 20

// repository returns the repository, or nil when there is none.
func (c *RepositoryConfig) repository(where *StoreConfig, a *app.App) (*repository.Repository, error) {
	if c.Location == "" {
		return nil, nil
	}
	var source repository.Source
	var err error
	if strings.HasPrefix(c.Location, s3.Scheme) {
		cache := c.Cache
		if cache == "" {
			cache = filepath.Join(where.DataDir, "model-repository")
		}
		source, err = s3.Open(c.Location, cache)
	} else {
		source, err = folder.Open(c.Location)
	}
	if err != nil {
		return nil, err
	}
	return repository.New(c.Looks, repository.Deps{
		Source: source,
		DecodeSample: func(text []byte, inputs []*clipperv1.TensorSpec) ([]*clipperv1.Tensor, error) {
			return naturaljson.Decode(text, inputs, maxSampleElements)
		},
		Logger:     a.Log,
		Registerer: a.Registry,
	})
}
