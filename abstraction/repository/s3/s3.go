// SPDX-License-Identifier: Apache-2.0

// Package s3 is a model repository in a bucket of S3 or of what speaks its protocol. It is the only
// package that does.
//
// A version's files are fetched into a folder of the cache that has their fingerprint in its name, and
// which appears there only when each file has the size and the sum that the bucket said.
package s3

import (
	"cmp"
	"context"
	"crypto/md5" //nolint:gosec // It is what S3 has as the sum of an object.
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"golang.org/x/sync/errgroup"

	"github.com/clipper-serving/clipper/abstraction/repository"
	"github.com/clipper-serving/clipper/internal/config"
)

// Scheme is what the location of a bucket begins with.
const Scheme = "s3://"

const (
	// maxFiles bounds what is listed.
	maxFiles = 500_000
	// attempts is how often a request is tried; the repository itself tries again later.
	attempts = 3
	// atOnce is how many files of a version are fetched at the same time.
	atOnce = 4
	// stallTimeout is how long a file may come without a byte.
	stallTimeout = time.Minute
	// young is how long files stay that no version needs, and partialYoung those that are not complete.
	young        = time.Hour
	partialYoung = 24 * time.Hour
	// partialPrefix begins the name of a folder that is being filled.
	partialPrefix = ".partial-"
	// metadataTimeout is how long the service that gives machines in a cloud their credentials may take.
	metadataTimeout = 2 * time.Second
)

// Source is a bucket, or what is in it below a prefix.
type Source struct {
	client   *minio.Client
	location string
	bucket   string
	prefix   string // empty, or with a slash at its end
	cache    string
}

var _ repository.Source = (*Source)(nil)

// Open returns the bucket of a location, "s3://bucket/prefix", as a source whose files are fetched into a
// folder. It connects to nothing. Where and who is in the environment, in the variables of the AWS SDKs:
// AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL, AWS_REGION, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY,
// AWS_SESSION_TOKEN, AWS_PROFILE, AWS_SHARED_CREDENTIALS_FILE. Without credentials in them, in the file,
// or from the machine's cloud, the bucket must be public.
func Open(location, cache string) (*Source, error) {
	failed := func(format string, args ...any) (*Source, error) {
		return nil, fmt.Errorf("open the model repository: "+format, args...)
	}
	bucket, prefix, _ := strings.Cut(strings.TrimPrefix(location, Scheme), "/")
	prefix = strings.Trim(prefix, "/")
	if prefix != "" {
		if reason := repository.CheckPath(prefix); reason != "" {
			return failed("model-repository: %q: the prefix %s", location, reason)
		}
		prefix += "/"
	}
	if bucket == "" {
		return failed("model-repository: %q: want s3://BUCKET or s3://BUCKET/PREFIX", location)
	}
	endpoint := &url.URL{Scheme: "https", Host: "s3.amazonaws.com"}
	if text := cmp.Or(os.Getenv("AWS_ENDPOINT_URL_S3"), os.Getenv("AWS_ENDPOINT_URL")); text != "" {
		var err error
		if endpoint, err = url.Parse(text); err != nil || endpoint.Host == "" || endpoint.Scheme != "http" && endpoint.Scheme != "https" {
			return failed("AWS_ENDPOINT_URL is no address: want http://HOST:PORT or https://HOST:PORT")
		}
	}
	dir, err := filepath.Abs(cache)
	if err != nil {
		return failed("model-repository-cache: %w", err)
	}
	location = Scheme + bucket + "/" + prefix
	sum := sha256.Sum256([]byte(location))
	client, err := minio.New(endpoint.Host, &minio.Options{
		Creds:      credentials.NewChainCredentials(providers()),
		Secure:     endpoint.Scheme == "https",
		Region:     cmp.Or(os.Getenv("AWS_REGION"), os.Getenv("AWS_DEFAULT_REGION")),
		MaxRetries: attempts,
	})
	if err != nil {
		return failed("%s: %w", location, err)
	}
	return &Source{
		client: client, location: strings.TrimSuffix(location, "/"), bucket: bucket, prefix: prefix,
		// Several repositories may share a cache.
		cache: filepath.Join(dir, hex.EncodeToString(sum[:8])),
	}, nil
}

// providers returns where credentials are looked for, in this order.
func providers() []credentials.Provider {
	all := []credentials.Provider{&credentials.EnvAWS{}, &credentials.FileAWSCredentials{}}
	if os.Getenv("AWS_EC2_METADATA_DISABLED") != "true" {
		all = append(all, &credentials.IAM{Client: &http.Client{Timeout: metadataTimeout}})
	}
	return all
}

// Location returns the bucket and the prefix.
func (s *Source) Location() string { return s.location }

// List returns the objects.
func (s *Source) List(ctx context.Context) ([]repository.File, error) {
	ctx, cancel := context.WithCancel(ctx) // Ends the listing when there are too many.
	defer cancel()
	var files []repository.File
	for object := range s.client.ListObjects(ctx, s.bucket, minio.ListObjectsOptions{Prefix: s.prefix, Recursive: true}) {
		path := strings.TrimPrefix(object.Key, s.prefix)
		switch {
		case object.Err != nil:
			return nil, fmt.Errorf("the bucket of the model repository cannot be listed: %s", explain(object.Err))
		case strings.HasSuffix(path, "/") && object.Size == 0 || path == "": // It stands for a folder.
			continue
		case len(files) >= maxFiles:
			return nil, fmt.Errorf("the bucket of the model repository has more than %d objects", maxFiles)
		}
		files = append(files, repository.File{Path: path, Size: object.Size, Tag: object.ETag, Refused: repository.CheckPath(path)})
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return files, nil
}

// explain returns what an error of the client says, with S3's code if it has one.
func explain(err error) string {
	if code := minio.ToErrorResponse(err).Code; code != "" && !strings.Contains(err.Error(), code) {
		return fmt.Sprintf("%v (%s)", err, code)
	}
	return err.Error()
}

// Read returns what is in an object.
func (s *Source) Read(ctx context.Context, f repository.File) ([]byte, error) {
	var text strings.Builder
	if err := s.get(ctx, f, &text); err != nil {
		return nil, err
	}
	return []byte(text.String()), nil
}

// plainSum is what the ETag of an object looks like that may be the MD5 sum of its bytes.
var plainSum = regexp.MustCompile(`^[0-9a-f]{32}$`)

// get writes an object, which must be the one that was listed.
func (s *Source) get(ctx context.Context, f repository.File, to io.Writer) error {
	failed := func(format string, args ...any) error {
		return fmt.Errorf("%s cannot be fetched: %s", f.Path, fmt.Sprintf(format, args...))
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	options := minio.GetObjectOptions{}
	if f.Tag != "" {
		if err := options.SetMatchETag(f.Tag); err != nil {
			return failed("%v", err)
		}
	}
	object, err := s.client.GetObject(ctx, s.bucket, s.prefix+f.Path, options)
	if err != nil {
		return failed("%s", explain(err))
	}
	defer object.Close() //nolint:errcheck // It is only read.
	stall := time.AfterFunc(stallTimeout, func() { cancel(fmt.Errorf("nothing came for %v", stallTimeout)) })
	defer stall.Stop()
	sum := md5.New() //nolint:gosec // See the import.
	n, err := io.Copy(io.MultiWriter(to, sum), io.LimitReader(&watched{object, stall}, f.Size+1))
	switch {
	case context.Cause(ctx) != nil:
		return failed("%v", context.Cause(ctx))
	case err != nil:
		return failed("%s", explain(err))
	case n != f.Size:
		return failed("it has %d bytes or more where %d were listed", n, f.Size)
	}
	info, err := object.Stat()
	if err != nil {
		return failed("%s", explain(err))
	}
	if got := hex.EncodeToString(sum.Sum(nil)); plainSum.MatchString(f.Tag) && !encrypted(info) && got != f.Tag {
		return failed("its bytes have the MD5 sum %s where the bucket says %s", got, f.Tag)
	}
	return nil
}

// encrypted reports whether an object's ETag is no sum of its bytes, because the store encrypts it with a
// key of its user's.
func encrypted(info minio.ObjectInfo) bool {
	return strings.HasPrefix(info.Headers.Get("X-Amz-Server-Side-Encryption"), "aws:kms") ||
		info.Headers.Get("X-Amz-Server-Side-Encryption-Customer-Algorithm") != ""
}

// watched puts a timer off at each read.
type watched struct {
	from  io.Reader
	stall *time.Timer
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.from.Read(p)
	w.stall.Reset(stallTimeout)
	return n, err
}

// folder returns where a version's files are or will be.
func (s *Source) folder(v repository.Version) string {
	return filepath.Join(s.cache, v.Model, v.Version, v.Fingerprint)
}

// Fetch brings a version's files here, unless they are.
func (s *Source) Fetch(ctx context.Context, v repository.Version) (string, error) {
	dir := s.folder(v)
	if complete(dir, v) {
		return dir, nil
	}
	// Others of this machine must not change what is loaded from it.
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		return "", fmt.Errorf("the cache cannot be written: %w", err)
	}
	if err := checkSpace(filepath.Dir(dir), v); err != nil {
		return "", err
	}
	partial, err := os.MkdirTemp(filepath.Dir(dir), partialPrefix)
	if err != nil {
		return "", fmt.Errorf("the cache cannot be written: %w", err)
	}
	defer os.RemoveAll(partial) //nolint:errcheck // Keep removes what is left.
	if err := s.fill(ctx, partial, v); err != nil {
		return "", err
	}
	if err := errors.Join(os.RemoveAll(dir), os.Rename(partial, dir)); err != nil {
		return "", fmt.Errorf("the cache cannot be written: %w", err)
	}
	return dir, nil
}

// complete reports whether all files are there.
func complete(dir string, v repository.Version) bool {
	for _, f := range v.Files {
		info, err := os.Stat(filepath.Join(dir, local(v, f)))
		if err != nil || info.Size() != f.Size {
			return false
		}
	}
	return true
}

// local returns a file's path in the version's folder.
func local(v repository.Version, f repository.File) string {
	return filepath.FromSlash(strings.TrimPrefix(f.Path, v.Model+"/"+v.Version+"/"))
}

// checkSpace refuses a version for which there is no space.
func checkSpace(dir string, v repository.Version) error {
	var size uint64
	for _, f := range v.Files {
		size += uint64(f.Size) //nolint:gosec // Sizes are not negative.
	}
	var disk syscall.Statfs_t
	if err := syscall.Statfs(dir, &disk); err != nil {
		return nil //nolint:nilerr // Then writing tells.
	}
	if free := disk.Bavail * uint64(disk.Bsize); free < size { //nolint:gosec // Sizes are not negative.
		return fmt.Errorf("there is no space for it: it needs %s and the cache %s has %s; make space, or set --model-repository-cache",
			config.Bytes(size), dir, config.Bytes(free)) //nolint:gosec // No disk is that large.
	}
	return nil
}

// fill writes all files into a folder and no further.
func (s *Source) fill(ctx context.Context, dir string, v repository.Version) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("the cache cannot be written: %w", err)
	}
	defer root.Close() //nolint:errcheck // Its files are closed.
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(atOnce)
	for _, f := range v.Files {
		group.Go(func() error {
			name := local(v, f)
			if err := root.MkdirAll(filepath.Dir(name), 0o700); err != nil {
				return unwritten(f, err)
			}
			file, err := root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
			if err != nil {
				return unwritten(f, err)
			}
			err = s.get(ctx, f, file)
			// The folder's name must not outlive its files in a crash.
			return errors.Join(err, file.Sync(), file.Close())
		})
	}
	return group.Wait()
}

// unwritten says why a file has no place in the cache.
func unwritten(f repository.File, err error) error {
	if errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.EISDIR) || errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s cannot be kept: the bucket has an object and a folder of the same name", f.Path)
	}
	return fmt.Errorf("%s cannot be written to the cache: %w", f.Path, err)
}

// Keep removes what was fetched for other versions, and what was never complete, some time after it came:
// other instances on this machine may have fetched it for versions that this one does not know yet.
func (s *Source) Keep(versions []repository.Version) error {
	kept := map[string]keep{}
	for _, v := range versions {
		dir := s.folder(v) // Without a fingerprint, that of all of the version.
		for kept[dir] = whole; ; {
			if dir = filepath.Dir(dir); dir == s.cache {
				break
			}
			kept[dir] = max(kept[dir], parts)
		}
	}
	return prune(s.cache, kept, 3)
}

// keep is how much of a folder is kept.
type keep int

const (
	nothing keep = iota
	parts        // what is said of the folders in it
	whole
)

// prune removes what is not kept and no longer young: folders of files, which are so many levels down, and
// the empty ones that lead to them.
func prune(dir string, kept map[string]keep, levels int) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var errs []error
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		info, err := e.Info()
		switch {
		case err != nil || kept[path] == whole: // One that went meanwhile is no error.
		case levels > 1:
			errs = append(errs, prune(path, kept, levels-1))
			if kept[path] == nothing {
				_ = os.Remove(path) // It stays when there is something in it.
			}
		case strings.HasPrefix(e.Name(), partialPrefix) && time.Since(info.ModTime()) > partialYoung,
			!strings.HasPrefix(e.Name(), partialPrefix) && time.Since(info.ModTime()) > young:
			errs = append(errs, os.RemoveAll(path))
		}
	}
	return errors.Join(append(errs, err)...)
}
