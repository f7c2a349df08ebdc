// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

type keyCommands struct {
	adminOptions

	Create keyCreate `cmd:"" help:"Create a key and show its secret, once."`
	List   keyList   `cmd:"" help:"List keys."`
	Show   keyShow   `cmd:"" help:"Show a key, without its secret."`
	Rotate keyRotate `cmd:"" help:"Give a key a new secret and show it, once."`
	Revoke keyRevoke `cmd:"" help:"Remove a key; it is refused within a second or so."`
}

// maxKeysPage is the most keys that a server lists at once.
const maxKeysPage = 1000

type keyCreate struct {
	Name    string         `arg:"" help:"What uses the key."`
	Role    []string       `required:"" placeholder:"ROLE" complete:"query,feedback,deploy,admin" help:"What it may do: query, feedback, deploy or admin; may be repeated."`
	App     []string       `required:"" placeholder:"APPLICATION" complete:"application" help:"The applications it is for; '*' is all, and what belongs to none. May be repeated."`
	Expires *time.Duration `placeholder:"DURATION" help:"How long it is accepted, as in 720h. Default: until it is revoked."`
	limitFlags
}

func (keyCreate) Help() string {
	return `Keys count where the frontend requires credentials, which it does when it is started with --auth-admin-key-file,
--auth-keys-file or --auth-jwt-issuer. The secret goes to standard output and cannot be shown again.

Examples:

    clipper key create shop --role query --role feedback --app digits
    clipper key create ci --role deploy --app '*' --expires 2160h
    clipper key create partner --role query --app digits --rate-limit 50 --rate-burst 100`
}

func (k *keyCreate) Run(c *client) error {
	key := &clipperv1.Key{Name: k.Name, Applications: k.App}
	for _, name := range k.Role {
		role := clipperv1.Role(clipperv1.Role_value["ROLE_"+strings.ToUpper(name)])
		if role == clipperv1.Role_ROLE_UNSPECIFIED {
			return usagef("--role: %q is not query, feedback, deploy or admin", name)
		}
		key.Roles = append(key.Roles, role)
	}
	if k.Expires != nil {
		key.ExpireTime = timestamppb.New(time.Now().Add(*k.Expires))
	}
	key.Limits, _ = k.limits(nil)
	service, err := c.keys()
	if err != nil {
		return err
	}
	created, err := service.CreateKey(c.ctx, &clipperv1.CreateKeyRequest{Key: key})
	if err != nil {
		return err
	}
	return c.showSecret(created, created.GetSecret(), "Created the key "+created.GetKey().GetId()+".")
}

// showSecret writes a secret alone to standard output, so that it can go into a file.
func (c *client) showSecret(answer proto.Message, secret, message string) error {
	if c.JSON {
		return c.writeJSON(answer)
	}
	_, _ = fmt.Fprintln(c.Stderr, message+" Its secret, which cannot be shown again:")
	_, err := fmt.Fprintln(c.Stdout, secret)
	return err
}

type keyList struct{}

func (keyList) Help() string { return "Examples:\n\n    clipper key list\n    clipper key list --json" }

func (keyList) Run(c *client) error {
	service, err := c.keys()
	if err != nil {
		return err
	}
	all := &clipperv1.ListKeysResponse{}
	for token := ""; ; {
		page, err := service.ListKeys(c.ctx, &clipperv1.ListKeysRequest{PageSize: maxKeysPage, PageToken: token})
		if err != nil {
			return err
		}
		all.Keys = append(all.Keys, page.GetKeys()...)
		if token = page.GetNextPageToken(); token == "" {
			break
		}
	}
	return c.showKeys(all, all.Keys)
}

func (c *client) showKeys(answer proto.Message, keys []*clipperv1.Key) error {
	if c.JSON {
		return c.writeJSON(answer)
	}
	t := &table{header: []string{"KEY", "NAME", "ROLES", "APPLICATIONS", "LIMITS", "AGE", "SECRET AGE", "EXPIRES"}}
	for _, k := range keys {
		var roles []string
		for _, role := range k.GetRoles() {
			roles = append(roles, enum(role, "ROLE_"))
		}
		expires := ""
		if k.GetExpireTime() != nil {
			expires = k.GetExpireTime().AsTime().Format(time.RFC3339)
		}
		t.add(k.GetId(), k.GetName(), strings.Join(roles, ","), strings.Join(k.GetApplications(), ","),
			limitsText(k.GetLimits()), age(k.GetCreateTime()), age(k.GetRotateTime()), expires)
	}
	return c.writeTable(t)
}

type keyShow struct {
	Key string `arg:"" help:"The key's id."`
}

func (keyShow) Help() string { return "Examples:\n\n    clipper key show 3fk7q2m4xw5a" }

func (k keyShow) Run(c *client) error {
	service, err := c.keys()
	if err != nil {
		return err
	}
	found, err := service.GetKey(c.ctx, &clipperv1.GetKeyRequest{Key: k.Key})
	if err != nil {
		return err
	}
	return c.showKeys(found, []*clipperv1.Key{found.GetKey()})
}

type keyRotate struct {
	Key     string        `arg:"" help:"The key's id."`
	Overlap time.Duration `placeholder:"DURATION" help:"How long the old secret is accepted beside the new one, up to 720h. Default: not at all."`
}

func (keyRotate) Help() string {
	return "Examples:\n\n    clipper key rotate 3fk7q2m4xw5a --overlap 24h"
}

func (k keyRotate) Run(c *client) error {
	service, err := c.keys()
	if err != nil {
		return err
	}
	rotated, err := service.RotateKey(c.ctx, &clipperv1.RotateKeyRequest{Key: k.Key, Overlap: durationpb.New(k.Overlap)})
	if err != nil {
		return err
	}
	return c.showSecret(rotated, rotated.GetSecret(), "Rotated the key "+k.Key+".")
}

type keyRevoke struct {
	Key string `arg:"" help:"The key's id."`
}

func (keyRevoke) Help() string { return "Examples:\n\n    clipper key revoke 3fk7q2m4xw5a" }

func (k keyRevoke) Run(c *client) error {
	service, err := c.keys()
	if err != nil {
		return err
	}
	revoked, err := service.RevokeKey(c.ctx, &clipperv1.RevokeKeyRequest{Key: k.Key})
	if err != nil {
		return err
	}
	if c.JSON {
		return c.writeJSON(revoked)
	}
	_, err = fmt.Fprintf(c.Stdout, "Revoked %s.\n", k.Key)
	return err
}
