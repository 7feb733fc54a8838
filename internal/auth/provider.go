package auth

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"syscall"
	"time"

	"golang.org/x/oauth2"

	"im-services/internal/im"
)

// maxProviderBody bounds a provider's answer.
const maxProviderBody = 1 << 20

// provider talks to one OAuth provider. Safe for concurrent use.
type provider struct {
	name   string
	cfg    ProviderConfig
	client *http.Client
}

// newProviders returns the providers there are, by name; nil for one that is not
// configured.
func newProviders(cfg OAuthConfig) map[string]*provider {
	client := newProviderClient(cfg)
	out := map[string]*provider{}
	for name, c := range map[string]ProviderConfig{"github": cfg.GitHub, "gitee": cfg.Gitee} {
		out[name] = nil
		if c.ClientID != "" {
			out[name] = &provider{name: name, cfg: c, client: client}
		}
	}
	return out
}

// newProviderClient returns a client that follows no redirects, uses no proxy,
// has time-outs and does not connect to addresses inside.
func newProviderClient(cfg OAuthConfig) *http.Client {
	dialer := &net.Dialer{Timeout: 3 * time.Second}
	if !cfg.AllowPrivateAddresses {
		// Control runs after name resolution, with the address of this very
		// connection: a name that changes its address cannot slip through.
		dialer.Control = func(_, address string, _ syscall.RawConn) error { return refusePrivate(address) }
	}
	return &http.Client{
		Timeout: cfg.Timeout,
		Transport: &http.Transport{
			DialContext:            dialer.DialContext,
			TLSHandshakeTimeout:    3 * time.Second,
			ResponseHeaderTimeout:  cfg.Timeout,
			MaxResponseHeaderBytes: 64 << 10,
			MaxConnsPerHost:        32,
			DisableKeepAlives:      true, // log-ins are rare: nothing stays behind
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

var errPrivateAddress = errors.New("auth: the provider's address is not a public one")

// sharedAddresses are not public either: carrier NAT, protocol assignments,
// documentation, benchmarks, 6to4 and NAT64, which embed IPv4 addresses.
var sharedAddresses = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("100.64.0.0/10"), netip.MustParsePrefix("192.0.0.0/24"),
	netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("198.18.0.0/15"), netip.MustParsePrefix("198.51.100.0/24"),
	netip.MustParsePrefix("203.0.113.0/24"), netip.MustParsePrefix("240.0.0.0/4"), netip.MustParsePrefix("64:ff9b::/96"),
	netip.MustParsePrefix("64:ff9b:1::/48"), netip.MustParsePrefix("2001:db8::/32"), netip.MustParsePrefix("2002::/16"),
	netip.MustParsePrefix("2001::/32"), netip.MustParsePrefix("fec0::/10"),
}

func refusePrivate(address string) error {
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return errPrivateAddress
	}
	a := ap.Addr().Unmap().WithZone("")
	if !a.IsGlobalUnicast() || a.IsPrivate() {
		return errPrivateAddress
	}
	for _, p := range sharedAddresses {
		if p.Contains(a) {
			return errPrivateAddress
		}
	}
	return nil
}

func (p *provider) conf(redirect string) *oauth2.Config {
	return &oauth2.Config{
		ClientID: p.cfg.ClientID, ClientSecret: p.cfg.ClientSecret, RedirectURL: redirect,
		Endpoint: oauth2.Endpoint{AuthURL: p.cfg.AuthorizeURL, TokenURL: p.cfg.TokenURL, AuthStyle: oauth2.AuthStyleInParams},
	}
}

// identify exchanges a code for the user it stands for. Its errors hold neither
// the code nor any token, nor what the provider wrote.
func (p *provider) identify(ctx context.Context, code string, st oauthState) (subject, error) {
	var opts []oauth2.AuthCodeOption
	if st.Verifier != "" {
		opts = append(opts, oauth2.VerifierOption(st.Verifier))
	}
	ctx = context.WithValue(ctx, oauth2.HTTPClient, p.client)
	tok, err := p.conf(st.Redirect).Exchange(ctx, code, opts...)
	if err != nil {
		return subject{}, exchangeError(err)
	}
	return p.user(ctx, tok.AccessToken)
}

// exchangeError keeps of an error what may be logged: the library's own text
// quotes the provider's answer.
func exchangeError(err error) error {
	if e, ok := errors.AsType[*oauth2.RetrieveError](err); ok {
		status := 0
		if e.Response != nil {
			status = e.Response.StatusCode
		}
		return fmt.Errorf("exchange refused: status %d", status)
	}
	if errors.Is(err, errPrivateAddress) {
		return errPrivateAddress
	}
	if e, ok := errors.AsType[net.Error](err); ok && e.Timeout() {
		return errors.New("exchange: time-out")
	}
	return errors.New("exchange failed")
}

func (p *provider) user(ctx context.Context, accessToken string) (subject, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.cfg.UserURL, nil)
	if err != nil {
		return subject{}, errors.New("user: bad URL")
	}
	req.Header.Set("Authorization", "Bearer "+accessToken)
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "im-services")
	resp, err := p.client.Do(req)
	if err != nil {
		return subject{}, exchangeError(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxProviderBody+1))
	switch {
	case err != nil:
		return subject{}, errors.New("user: answer cut off")
	case resp.StatusCode != http.StatusOK:
		return subject{}, fmt.Errorf("user: status %d", resp.StatusCode)
	case len(body) > maxProviderBody:
		return subject{}, errors.New("user: answer too large")
	}
	return p.parseUser(body)
}

// parseUser reads a provider's description of a user.
func (p *provider) parseUser(body []byte) (subject, error) {
	// A field of another type than ours must not cost the login, only the id must
	// be right: so each is read by itself.
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(body, &fields); err != nil {
		return subject{}, errors.New("user: answer is no JSON object")
	}
	var who subject
	dec := json.NewDecoder(bytes.NewReader(fields["id"]))
	if err := dec.Decode(&who.ID); err != nil || who.ID <= 0 || who.ID > im.MaxID {
		return subject{}, errors.New("user: no usable id")
	}
	read := func(field string) *string {
		var s *string
		if json.Unmarshal(fields[field], &s) != nil {
			return nil
		}
		return s
	}
	who.Login, who.Name, who.Email = read("login"), read("name"), read("email")
	who.AvatarURL, who.Bio = read("avatar_url"), read("bio")
	if p.name == "gitee" {
		who.preferred, who.Email = who.Name, nil // Gitee does not prove addresses
	}
	return who, nil
}
