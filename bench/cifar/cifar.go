// SPDX-License-Identifier: Apache-2.0

// Package cifar runs Clipper on what five networks said about CIFAR-10: each is a replay container.
package cifar

import (
	"context"
	"encoding/binary"
	"fmt"
	"strconv"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/clipper-serving/clipper/bench/system"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/recorded"
)

// System is Clipper, in one process with the embedded store, and the recordings.
type System struct {
	*recorded.CIFAR
	*system.Clipper
	// Best is the network with the smallest error, the one that can fail.
	Best int
	// Conn is a connection to the query listener.
	Conn *grpc.ClientConn

	replay string
}

// Start starts Clipper without models. The folder of the recordings is named by recorded.DataVariable, or is the
// one beside the checkout.
func Start(ctx context.Context, b system.Binaries) (*System, error) {
	root, err := system.Root(ctx)
	if err != nil {
		return nil, err
	}
	recordings, err := recorded.ReadCIFAR(recorded.Data(root))
	if err != nil {
		return nil, fmt.Errorf("%w; set %s to the folder that has paper/cifar", err, recorded.DataVariable)
	}
	s := &System{CIFAR: recordings, replay: b.Replay}
	for network := range s.Networks {
		if s.Error(network) < s.Error(s.Best) {
			s.Best = network
		}
	}
	if s.Clipper, err = system.StartClipper(b, false); err != nil {
		return nil, err
	}
	if s.Conn, err = grpc.NewClient(s.QueryGRPC, grpc.WithTransportCredentials(insecure.NewCredentials())); err != nil {
		s.Clipper.Stop()
		return nil, err
	}
	return s, nil
}

// Stop ends it.
func (s *System) Stop() {
	_ = s.Conn.Close()
	s.Clipper.Stop()
}

// DeployNetworks deploys the networks with an output of the replay container, in their order, and waits
// until they are ready.
func (s *System) DeployNetworks(ctx context.Context, output string) ([]*clipperv1.ApplicationModel, error) {
	models := make([]*clipperv1.ApplicationModel, len(s.Networks))
	for i, file := range s.Files {
		name := output + strconv.Itoa(i+1)
		command := []string{s.replay, "--table", file, "--output", output}
		if i == s.Best {
			command = append(command, "--fails")
		}
		err := s.Deploy(ctx, name, &clipperv1.ModelVersion{
			Container: &clipperv1.Container{Source: &clipperv1.Container_Command{Command: &clipperv1.Command{Arguments: command}}},
		})
		if err != nil {
			return nil, err
		}
		models[i] = &clipperv1.ApplicationModel{Model: name}
	}
	return models, nil
}

// Input is the query for an image. With noise that is not 0 the best network fails: it answers with noise of
// this number.
func Input(image, noise int) []*clipperv1.Tensor {
	data := binary.LittleEndian.AppendUint64(nil, uint64(image))
	return []*clipperv1.Tensor{{DataType: clipperv1.DataType_DATA_TYPE_INT64, Shape: []int64{2}, Data: binary.LittleEndian.AppendUint64(data, uint64(noise))}}
}
