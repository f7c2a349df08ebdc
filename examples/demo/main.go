// SPDX-License-Identifier: Apache-2.0

// Command demo streams handwritten digits through two applications that ask the same five models,
// one with Exp4 and one with Exp3, and tells each the truth. In the middle it spoils the best model
// and later heals it, as a bad release and its rollback would. It prints what happened and exits
// with 1 when one of its checks fails.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("demo", flag.ContinueOnError)
	query := flags.String("address", "127.0.0.1:1347", "the query listener (gRPC)")
	admin := flags.String("admin-address", "127.0.0.1:1348", "the administration listener (gRPC)")
	file := flags.String("images", "heldout.jsonl", "one JSON object a line: image, digit")
	ensemble := flags.String("ensemble", "digits", "the application that uses Exp4")
	bandit := flags.String("bandit", "digits-exp3", "the application that uses Exp3")
	spoiled := flags.String("spoiled-version", "shuffled", "the version that stands for a bad release")
	passes := flags.Int("passes", 2, "how often every image is sent in the failure and after it; before it, twice as often")
	callers := flags.Int("callers", 16, "images under way at once")
	if err := flags.Parse(args); err != nil {
		return err
	}
	images, err := load(*file)
	if err != nil {
		return err
	}
	conns := make([]*grpc.ClientConn, 0, 2)
	for _, address := range []string{*query, *admin} {
		conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close() }()
		conns = append(conns, conn)
	}
	d := newDemo(conns[0], conns[1], *ensemble, *bandit, images)
	if err := d.stream(ctx, [phases]int{2 * *passes, *passes, *passes}, *callers, *spoiled); err != nil {
		return err
	}
	if failed := d.report(os.Stdout); len(failed) > 0 {
		return errors.New("failed: " + strings.Join(failed, "; "))
	}
	return nil
}
