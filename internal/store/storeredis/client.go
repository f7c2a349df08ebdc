// SPDX-License-Identifier: Apache-2.0

package storeredis

import (
	"context"
	"errors"
	"fmt"
	"net/url"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

const (
	// sentinelParameter is the parameter of an address by which it is one of Sentinels.
	sentinelParameter = "master_name"

	// retries is none: a write whose answer was lost may have been done, so only the
	// caller, who knows whether it has a once identity, may try again.
	retries = -1

	// pipelinePool is none: so few pipelines need no connections of their own, which
	// leaveReplica could not reach.
	pipelinePool = -1
)

// newClient makes the client of an address; it connects when it is used. Errors do not show the address.
func newClient(address *url.URL, connected func(context.Context, *redis.Conn) error) (*redis.Client, error) {
	if address.Query().Has(sentinelParameter) {
		return newSentinelClient(address, connected)
	}
	options, err := redis.ParseURL(address.String())
	if err != nil {
		return nil, err
	}
	options.MaxRetries = retries
	options.ContextTimeoutEnabled = true
	options.PipelinePoolSize = pipelinePool
	options.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	options.OnConnect = connected
	return redis.NewClient(options), nil
}

// newSentinelClient makes a client that asks Sentinels which server takes writes.
func newSentinelClient(address *url.URL, connected func(context.Context, *redis.Conn) error) (*redis.Client, error) {
	options, err := redis.ParseFailoverURL(address.String())
	if err != nil {
		return nil, err
	}
	if options.MasterName == "" {
		return nil, fmt.Errorf("%s is empty", sentinelParameter)
	}
	// What has been written has to be seen by who reads next.
	if options.ReplicaOnly || options.RouteByLatency || options.RouteRandomly || options.UseDisconnectedReplicas {
		return nil, errors.New("replicas cannot be read from")
	}
	options.MaxRetries = retries
	options.ContextTimeoutEnabled = true
	options.PipelinePoolSize = pipelinePool
	options.OnConnect = connected
	return redis.NewFailoverClient(options), nil
}
