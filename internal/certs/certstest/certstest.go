// SPDX-License-Identifier: Apache-2.0

// Package certstest makes certificates for tests.
package certstest

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"
)

// CA signs certificates. Safe for concurrent use.
type CA struct {
	// Path is the file with its own certificate.
	Path string

	dir    string
	cert   *x509.Certificate
	key    *ecdsa.PrivateKey
	serial atomic.Int64
}

// New makes a CA of the given name, with its files in a folder.
func New(dir, name string) (*CA, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(1, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	c := &CA{Path: filepath.Join(dir, name+".pem"), dir: dir, key: key}
	c.serial.Store(1)
	if c.cert, err = x509.ParseCertificate(der); err != nil {
		return nil, err
	}
	return c, replace(c.Path, "CERTIFICATE", der)
}

// Issue makes a certificate for 127.0.0.1, localhost and its own name, for servers and clients, that is
// valid until a time from now; in the past, it has expired. The files <name>.crt and <name>.key are
// replaced one after the other, as those who renew certificates do.
func (c *CA) Issue(name string, valid time.Duration) (cert, key string, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", "", err
	}
	now := time.Now()
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(c.serial.Add(1)), Subject: pkix.Name{CommonName: name},
		NotBefore: now.Add(-24 * time.Hour), NotAfter: now.Add(valid),
		DNSNames: []string{name, "localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, c.cert, &private.PublicKey, c.key)
	if err != nil {
		return "", "", err
	}
	text, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return "", "", err
	}
	cert, key = filepath.Join(c.dir, name+".crt"), filepath.Join(c.dir, name+".key")
	if err := replace(cert, "CERTIFICATE", der); err != nil {
		return "", "", err
	}
	return cert, key, replace(key, "PRIVATE KEY", text)
}

// Serial returns the number of the certificate that was issued last.
func (c *CA) Serial() int64 { return c.serial.Load() }

// replace puts a new file in the place of one, so that nobody reads half of it.
func replace(path, kind string, der []byte) error {
	var text bytes.Buffer
	if err := pem.Encode(&text, &pem.Block{Type: kind, Bytes: der}); err != nil {
		return err
	}
	if err := os.WriteFile(path+".new", text.Bytes(), 0o600); err != nil {
		return err
	}
	if err := os.Rename(path+".new", path); err != nil {
		return fmt.Errorf("replace a certificate: %w", err)
	}
	return nil
}
