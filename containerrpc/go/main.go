// SPDX-License-Identifier: Apache-2.0

package container

import (
	"context"
	"errors"
	"flag"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"strconv"
	"syscall"
)

// The exit codes of Main that a launcher tells apart.
const (
	exitFailed    = 1  // It may work the next time.
	exitUsage     = 2  // The command line is wrong.
	exitNeverWork = 78 // The model is missing, broken or of another framework.
)

// Main is the main function of a container: it reads the settings, serves the model that load returns until
// SIGTERM or SIGINT, and exits. It does not return.
func Main(load Loader) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	code := run(ctx, os.Args[1:], os.Stderr, load)
	stop()
	os.Exit(code)
}

func run(ctx context.Context, args []string, stderr io.Writer, load Loader) int {
	cfg := ConfigFromEnvironment()
	level := slog.LevelInfo
	if text := os.Getenv("CLIPPER_LOG_LEVEL"); text != "" && level.UnmarshalText([]byte(text)) != nil {
		level = slog.LevelInfo
	}
	cfg.MaxMessageBytes = defaultMessageBytes
	if text := os.Getenv("CLIPPER_MAX_MESSAGE_BYTES"); text != "" {
		cfg.MaxMessageBytes, _ = strconv.Atoi(text) // 0 is refused below.
	}
	if cfg.Address == "" {
		cfg.Address = "127.0.0.1:7000"
	}
	flags := flag.NewFlagSet("container", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&cfg.Address, "address", cfg.Address, "unix:/path or host:port to serve on (CLIPPER_CONTAINER_ADDRESS)")
	flags.StringVar(&cfg.Model, "model-name", cfg.Model, "the model's name (CLIPPER_MODEL_NAME)")
	flags.StringVar(&cfg.Version, "model-version", cfg.Version, "the model's version (CLIPPER_MODEL_VERSION)")
	flags.StringVar(&cfg.ModelPath, "model-path", cfg.ModelPath, "the saved model (CLIPPER_MODEL_PATH)")
	flags.StringVar(&cfg.RegisterAddress, "register-address", cfg.RegisterAddress, "where to register as a replica (CLIPPER_REGISTER_ADDRESS)")
	flags.StringVar(&cfg.AdvertiseAddress, "advertise-address", cfg.AdvertiseAddress, "where Clipper reaches the container (CLIPPER_ADVERTISE_ADDRESS)")
	flags.StringVar(&cfg.TLS.Cert, "tls-cert", cfg.TLS.Cert, "certificate to serve with over TLS (CLIPPER_CONTAINER_TLS_CERT)")
	flags.StringVar(&cfg.TLS.Key, "tls-key", cfg.TLS.Key, "the certificate's key (CLIPPER_CONTAINER_TLS_KEY)")
	flags.StringVar(&cfg.TLS.ClientCA, "tls-client-ca", cfg.TLS.ClientCA, "CAs of which Clipper must have a certificate (CLIPPER_CONTAINER_TLS_CLIENT_CA)")
	flags.BoolVar(&cfg.RegisterTLS, "register-tls", cfg.RegisterTLS, "register over TLS, trusting the system's CAs (CLIPPER_REGISTER_TLS=1)")
	flags.StringVar(&cfg.RegisterCA, "register-tls-ca", cfg.RegisterCA, "CAs to trust when registering (CLIPPER_REGISTER_TLS_CA)")
	flags.StringVar(&cfg.RegisterCert, "register-tls-cert", cfg.RegisterCert, "certificate to present when registering (CLIPPER_REGISTER_TLS_CERT)")
	flags.StringVar(&cfg.RegisterKey, "register-tls-key", cfg.RegisterKey, "that certificate's key (CLIPPER_REGISTER_TLS_KEY)")
	flags.StringVar(&cfg.RegisterTokenFile, "register-token-file", cfg.RegisterTokenFile, "file with the token to register with (CLIPPER_REGISTER_TOKEN_FILE; or the token itself in CLIPPER_REGISTER_TOKEN)")
	flags.StringVar(&cfg.MetricsAddress, "metrics-address", cfg.MetricsAddress, "host:port for Prometheus (CLIPPER_METRICS_ADDRESS)")
	flags.IntVar(&cfg.MaxMessageBytes, "max-message-bytes", cfg.MaxMessageBytes, "the largest request (CLIPPER_MAX_MESSAGE_BYTES)")
	flags.TextVar(&level, "log-level", level, "debug, info, warn or error (CLIPPER_LOG_LEVEL)")
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return 0
	} else if err != nil {
		return exitUsage
	}
	cfg.Logger = slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: level}))
	if flags.NArg() > 0 || cfg.MaxMessageBytes < 1 {
		cfg.Logger.Error("the command line is wrong: expected flags only, and --max-message-bytes of at least 1; --help lists them")
		return exitUsage
	}
	err := Load(ctx, cfg, load)
	if err == nil {
		cfg.Logger.Info("stopped")
		return 0
	}
	cfg.Logger.Error(err.Error())
	if loading := (*LoadError)(nil); errors.As(err, &loading) && !mayPass(err) {
		return exitNeverWork
	}
	return exitFailed
}

// mayPass reports whether the cause of a failure may be gone the next time.
func mayPass(err error) bool {
	// Every syscall.Errno, also that of a missing file, has the methods of a net.Error.
	network := net.Error(nil)
	lost := errors.As(err, &network)
	if _, number := network.(syscall.Errno); number {
		lost = false
	}
	return lost || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, syscall.ENOMEM)
}
