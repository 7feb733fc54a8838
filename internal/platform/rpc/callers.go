package rpc

import (
	"context"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

// Callers says who may call what: by the DNS name in a caller's certificate,
// full methods ("/logic.v1.ConversationService/Notify") or whole services
// ("/logic.v1.MessageService/"). So a stolen certificate of one process opens
// what that process uses and nothing else.
type Callers map[string][]string

// Allow reports whether a caller of that name may call the method.
func (c Callers) Allow(name, method string) bool {
	for _, allowed := range c[name] {
		if method == allowed || strings.HasSuffix(allowed, "/") && strings.HasPrefix(method, allowed) {
			return true
		}
	}
	return false
}

// healthMethods are open to every caller: clients choose instances by them.
const healthMethods = "/grpc.health.v1.Health/"

// authorise refuses a call that is not in the table. Without TLS callers have no
// names, and there is nothing to decide.
func (s *Server) authorise(ctx context.Context, method string) error {
	if s.cfg.Callers == nil || !s.cfg.TLS.enabled() || strings.HasPrefix(method, healthMethods) {
		return nil
	}
	names := callerNames(ctx)
	for _, name := range names {
		if s.cfg.Callers.Allow(name, method) {
			return nil
		}
	}
	return status.Errorf(codes.PermissionDenied, "rpc: caller %q may not call %s", names, method)
}

// callerNames are the DNS names in the caller's verified certificate.
func callerNames(ctx context.Context) []string {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return nil
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok || len(info.State.PeerCertificates) == 0 {
		return nil
	}
	return info.State.PeerCertificates[0].DNSNames
}
