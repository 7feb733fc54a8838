package rpc

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/resolver"
)

// Telemetry is what the process offers for logs and metrics;
// *telemetry.Telemetry does. Nil means none.
type Telemetry interface {
	Logger() *slog.Logger
	Registerer() prometheus.Registerer
}

// Discovery resolves im:/// targets; *discovery.Registry does.
type Discovery interface {
	Resolver() resolver.Builder
}

// ServerConfig is the yaml section "rpc". Zero fields take the defaults named.
type ServerConfig struct {
	Listen     string        `yaml:"listen"`      // host:port; port 0 picks one
	Advertise  string        `yaml:"advertise"`   // host[:port] others reach us by; found out if empty
	StopBudget time.Duration `yaml:"stop_budget"` // 10s for calls in progress at a stop
	MaxStreams uint32        `yaml:"max_streams"` // 1024 calls at once per connection
	MaxRequest int           `yaml:"max_request"` // 4 MiB
	TLS        TLSConfig     `yaml:"tls"`
	// Callers is who may call what, where TLS is on; nil: everybody everything.
	// It is the program's, not the operator's, to say.
	Callers Callers `yaml:"-"`
}

// TLSConfig names PEM files. With none, connections are in the clear; with any,
// all three are needed and both sides must show a certificate of the CA.
type TLSConfig struct {
	Cert string `yaml:"cert"`
	Key  string `yaml:"key"`
	CA   string `yaml:"ca"`

	// AllowedNames, on a server, are the DNS names of which a client's
	// certificate must carry one; empty allows every client the CA signed.
	AllowedNames []string `yaml:"allowed_names"`
	// ServerName, on a client, is the name the server's certificate must
	// carry; by default the service name of an im:/// target.
	ServerName string `yaml:"server_name"`
}

func (c TLSConfig) enabled() bool { return c.Cert != "" || c.Key != "" || c.CA != "" }

// load reads the files.
func (c TLSConfig) load() (tls.Certificate, *x509.CertPool, error) {
	if c.Cert == "" || c.Key == "" || c.CA == "" {
		return tls.Certificate{}, nil, errors.New("rpc: tls needs cert, key and ca")
	}
	cert, err := tls.LoadX509KeyPair(c.Cert, c.Key)
	if err != nil {
		return tls.Certificate{}, nil, fmt.Errorf("rpc: tls: %w", err)
	}
	pem, err := os.ReadFile(c.CA)
	if err != nil {
		return tls.Certificate{}, nil, fmt.Errorf("rpc: tls: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return tls.Certificate{}, nil, fmt.Errorf("rpc: tls: %s holds no certificate", c.CA)
	}
	return cert, pool, nil
}

// server makes the configuration of the accepting side.
func (c TLSConfig) server() (*tls.Config, error) {
	cert, pool, err := c.load()
	if err != nil {
		return nil, err
	}
	allowed := slices.Clone(c.AllowedNames)
	return &tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{cert},
		ClientCAs:    pool,
		ClientAuth:   tls.RequireAndVerifyClientCert,
		VerifyConnection: func(cs tls.ConnectionState) error {
			if len(allowed) == 0 {
				return nil
			}
			for _, name := range cs.PeerCertificates[0].DNSNames {
				if slices.Contains(allowed, name) {
					return nil
				}
			}
			return errors.New("rpc: the client's certificate carries no allowed name")
		},
	}, nil
}

// client makes the configuration of the calling side.
func (c TLSConfig) client() (*tls.Config, error) {
	cert, pool, err := c.load()
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{cert},
		RootCAs:      pool,
		ServerName:   c.ServerName,
	}, nil
}

// logger and registerer accept a missing Telemetry.
func logger(tel Telemetry) *slog.Logger {
	if tel == nil {
		return slog.New(slog.DiscardHandler)
	}
	return tel.Logger()
}

func registerer(tel Telemetry) prometheus.Registerer {
	if tel == nil {
		return nil
	}
	return tel.Registerer()
}
