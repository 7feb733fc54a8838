package auth

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	authv1 "im-services/api/proto/auth/v1"
	"im-services/internal/im"
)

// fakeProvider is GitHub and Gitee on loopback. The code is the user document
// that it is exchanged for, unless token or user are set.
type fakeProvider struct {
	*httptest.Server
	mu     sync.Mutex
	forms  []url.Values
	tokens map[string]string // access token -> user document
	token  http.HandlerFunc
	user   http.HandlerFunc
}

func newFakeProvider(t *testing.T) *fakeProvider {
	p := &fakeProvider{tokens: map[string]string{}}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /token", func(w http.ResponseWriter, r *http.Request) {
		if h, _ := p.handlers(); h != nil {
			h(w, r)
			return
		}
		_ = r.ParseForm()
		p.mu.Lock()
		defer p.mu.Unlock()
		p.forms = append(p.forms, r.PostForm)
		at := fmt.Sprintf("provider-token-%d", len(p.forms))
		p.tokens[at] = r.PostForm.Get("code")
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]string{"access_token": at, "token_type": "bearer"})
	})
	mux.HandleFunc("GET /user", func(w http.ResponseWriter, r *http.Request) {
		if _, h := p.handlers(); h != nil {
			h(w, r)
			return
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		doc, ok := p.tokens[strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")]
		if !ok {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		_, _ = w.Write([]byte(doc))
	})
	p.Server = httptest.NewServer(mux)
	t.Cleanup(p.Close)
	return p
}

// answerWith replaces the two endpoints; nil is the real thing.
func (p *fakeProvider) answerWith(token, user http.HandlerFunc) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.token, p.user = token, user
}

func (p *fakeProvider) handlers() (token, user http.HandlerFunc) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.token, p.user
}

func (p *fakeProvider) lastForm() url.Values {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.forms[len(p.forms)-1]
}

func (p *fakeProvider) configure(c *Config) {
	c.OAuth.AllowPrivateAddresses = true
	pc := ProviderConfig{
		ClientID: "id", ClientSecret: "the-client-secret", AuthorizeURL: p.URL + "/authorize", TokenURL: p.URL + "/token", UserURL: p.URL + "/user",
		RedirectURIs: []string{"http://chat.example.com/login?login_type=gitee", "http://chat.example.com/other"},
	}
	c.OAuth.GitHub, c.OAuth.Gitee = pc, pc
}

func newOAuthEnv(t *testing.T, change ...func(*Config)) (*env, *fakeProvider) {
	p := newFakeProvider(t)
	return newEnv(t, append([]func(*Config){debugMode, p.configure}, change...)...), p
}

func (e *env) oauth(provider, code string) (*authv1.LoggedIn, error) {
	res, err := e.LoginOAuth(e.t.Context(), &authv1.LoginOAuthRequest{Provider: provider, Code: code})
	return res.GetLogin(), err
}

const octocat = `{"id":583231,"login":"octocat","name":"The Octocat","email":"Octocat@GitHub.com","avatar_url":"https://avatars.example.com/u/583231","bio":"hi"}`

func TestOAuth_FirstLoginMakesTheAccount(t *testing.T) {
	e, p := newOAuthEnv(t)
	l, err := e.oauth("github", octocat)
	require.NoError(t, err)
	require.True(t, l.GetCreated())
	u := l.GetUser()
	require.Equal(t, []string{"octocat", "octocat@github.com", "https://avatars.example.com/u/583231", "hi"},
		[]string{u.GetName(), u.GetEmail(), u.GetAvatar(), u.GetBio()})
	require.False(t, u.GetBot())
	require.Equal(t, im.UserID(u.GetId()), e.mustVerify(l.GetAccessToken()).UserID)
	form := p.lastForm()
	require.Equal(t, []string{"id", "the-client-secret", "authorization_code"},
		[]string{form.Get("client_id"), form.Get("client_secret"), form.Get("grant_type")})

	// Renamed there, with another e-mail: the same account here, told by the number.
	again, err := e.oauth("", `{"id":583231,"login":"renamed","email":"other@github.com"}`)
	require.NoError(t, err, "no login_type means github")
	require.False(t, again.GetCreated())
	require.Equal(t, u.GetId(), again.GetUser().GetId())
	require.Equal(t, "octocat", again.GetUser().GetName())

	gitee, err := e.oauth("gitee", `{"id":583231,"login":"oc","name":"章鱼"}`)
	require.NoError(t, err)
	require.True(t, gitee.GetCreated(), "the same number elsewhere is somebody else")
	require.Equal(t, "章鱼", gitee.GetUser().GetName())
	require.Empty(t, gitee.GetUser().GetEmail())
	require.Equal(t, fmt.Sprintf("/avatars/%d.png", gitee.GetUser().GetId()), gitee.GetUser().GetAvatar())
}

// Defect 23: OAuth accounts got the password "<provider id>password".
func TestDefect23_OAuthAccountsHaveNoPassword(t *testing.T) {
	e, _ := newOAuthEnv(t)
	l, err := e.oauth("github", octocat)
	require.NoError(t, err)
	for _, password := range []string{"583231password", "password", "octocat", "583231", goodPassword} {
		_, err := e.Login(t.Context(), &authv1.LoginRequest{Email: "octocat@github.com", Password: password})
		requireReason(t, "login_failed", err)
	}
	var stored string
	require.NoError(t, e.db.Get(&stored, "SELECT password FROM users WHERE id = ?", l.GetUser().GetId()))
	require.Empty(t, stored)
	_, err = e.ResetPassword(t.Context(), &authv1.ResetPasswordRequest{Email: "octocat@github.com", Code: "0000", Password: goodPassword})
	requireReason(t, "email_unknown", err, "nor can one be set by e-mail")
}

// The provider's e-mail is for display: it neither enters another account nor
// keeps the address's owner from registering.
func TestOAuth_EmailNamesNoAccount(t *testing.T) {
	e, _ := newOAuthEnv(t)
	victim := e.registerAs("victim@example.com", "victim")
	l, err := e.oauth("github", `{"id":7,"login":"mallory","email":"victim@example.com"}`)
	require.NoError(t, err)
	require.NotEqual(t, victim.GetId(), l.GetUser().GetId())
	require.Equal(t, victim.GetId(), e.mustLogin("victim@example.com").GetUser().GetId())

	_, err = e.oauth("github", `{"id":8,"login":"squatter","email":"later@example.com"}`)
	require.NoError(t, err)
	e.registerAs("later@example.com", "later")
}

// Defect 33: null fields, error bodies and a missing id made it panic.
func TestDefect33_ToleratesNullsAndNonsense(t *testing.T) {
	e, _ := newOAuthEnv(t)
	for i, doc := range []string{
		`{"id":%d,"login":"null%d","name":null,"email":null,"bio":null,"avatar_url":null}`,
		`{"id":%d,"login":"bare%d"}`,
		`{"id":%d,"login":"types%d","email":5,"bio":{},"avatar_url":[],"name":true}`,
		`{"id":%d,"login":"bad%d","email":"not an address","avatar_url":"javascript:alert(1)"}`,
		`{"id":%d,"login":"data%d","avatar_url":"data:image/png;base64,AAAA"}`,
		`{"id":%d,"login":"long%d","bio":"` + strings.Repeat("长", 5000) + `","avatar_url":"https://a.example/` + strings.Repeat("x", 600) + `"}`,
		`{"id":%d,"login":"nul%d","bio":"a\u0000b"}`,
		`{"id":%d,"login":"\ud800surrogate%d"}`,
	} {
		id := i + 100
		e.providers["github"].cfg = fixedUser(t, strings.ReplaceAll(doc, "%d", fmt.Sprint(id)))
		l, err := e.oauth("github", "code")
		require.NoError(t, err, "%.30s", doc)
		require.Equal(t, fmt.Sprintf("/avatars/%d.png", l.GetUser().GetId()), l.GetUser().GetAvatar())
		require.Empty(t, l.GetUser().GetEmail())
		require.NotEmpty(t, l.GetUser().GetName())
		require.LessOrEqual(t, len([]rune(l.GetUser().GetBio())), maxBioRunes)
	}
	for name, doc := range map[string]string{
		"null login":      `{"id":201,"login":null,"name":null}`,
		"blank login":     `{"id":202,"login":"  "}`,
		"only controls":   `{"id":203,"login":"\u202e\u0007"}`,
		"very long login": `{"id":204,"login":"` + strings.Repeat("n", 500) + `"}`,
	} {
		e.providers["github"].cfg = fixedUser(t, doc)
		l, err := e.oauth("github", "code")
		require.NoError(t, err, name)
		_, err = cleanName(l.GetUser().GetName())
		require.NoError(t, err, name)
	}
	for name, doc := range map[string]string{
		"empty": ``, "null": `null`, "list": `[]`, "text": `"x"`, "HTML": `<html>`, "no id": `{"login":"x"}`, "id null": `{"id":null}`,
		"id text": `{"id":"1"}`, "id zero": `{"id":0}`, "id negative": `{"id":-1}`, "id fraction": `{"id":1.5}`, "id 1e99": `{"id":1e99}`,
		"id beyond 2^53": `{"id":9007199254740993}`, "id list": `{"id":[1]}`, "error body": `{"message":"Bad credentials"}`,
		"too large": `{"id":300,"login":"big","pad":"` + strings.Repeat("x", maxProviderBody) + `"}`,
	} {
		e.providers["github"].cfg = fixedUser(t, doc)
		_, err := e.oauth("github", "code")
		requireReason(t, "oauth_failed", err, name)
	}
}

// fixedUser makes a provider that answers every code with doc.
func fixedUser(t *testing.T, doc string) ProviderConfig {
	p := newFakeProvider(t)
	p.answerWith(nil, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(doc)) })
	var c Config
	p.configure(&c)
	return c.OAuth.GitHub
}

func TestDefect33_ProviderTrouble(t *testing.T) {
	e, p := newOAuthEnv(t, func(c *Config) { c.OAuth.Timeout = time.Second })
	inner := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(`{"id":1,"login":"inner","access_token":"x"}`))
	}))
	defer inner.Close()
	hang := make(chan struct{})
	defer close(hang)
	for name, h := range map[string]http.HandlerFunc{
		"refused code, GitHub's way": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write([]byte(`{"error":"bad_verification_code","error_description":"LEAK"}`))
		},
		"refused code, the standard's way": func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusBadRequest)
			_, _ = w.Write([]byte(`{"error":"invalid_grant","access_token":"LEAK"}`))
		},
		"empty answer": func(http.ResponseWriter, *http.Request) {},
		"no JSON":      func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>LEAK")) },
		"redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, inner.URL, http.StatusTemporaryRedirect)
		},
		"server error": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) },
		"hangs":        func(http.ResponseWriter, *http.Request) { <-hang },
		"cut off": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000")
			_, _ = w.Write([]byte(`{"access_`))
		},
	} {
		for _, stage := range []string{"token", "user"} {
			if stage == "token" {
				p.answerWith(h, nil)
			} else {
				p.answerWith(nil, h)
			}
			start := time.Now()
			_, err := e.oauth("github", octocat)
			requireReason(t, "oauth_failed", err, "%s at %s", name, stage)
			require.Less(t, time.Since(start), 3*time.Second, "%s at %s", name, stage)
			require.NotContains(t, err.Error(), "LEAK", "%s at %s", name, stage)
			require.NotContains(t, err.Error(), "octocat", "the code")
		}
	}
	p.answerWith(nil, nil)
	_, err := e.oauth("github", octocat)
	require.NoError(t, err)
	require.NotContains(t, e.logs.String(), "LEAK")
	require.NotContains(t, e.logs.String(), "provider-token")
	require.NotContains(t, e.logs.String(), "the-client-secret")
	for _, code := range []string{"", strings.Repeat("c", maxCode+1)} {
		_, err = e.oauth("github", code)
		requireReason(t, "oauth_failed", err)
	}
	for _, name := range []string{"google", "GitHub", "git hub", "../github"} {
		_, err = e.oauth(name, octocat)
		requireReason(t, "provider_invalid", err, name)
	}
	e.providers["github"] = nil // as without a client id
	_, err = e.oauth("github", octocat)
	requireReason(t, "provider_off", err)
	_, err = e.OAuthURL(t.Context(), &authv1.OAuthURLRequest{Provider: "github"})
	requireReason(t, "provider_off", err)
}

func TestDefect33_StateIsCheckedAndWorksOnce(t *testing.T) {
	e, p := newOAuthEnv(t)
	res, err := e.OAuthURL(t.Context(), &authv1.OAuthURLRequest{Provider: "github"})
	require.NoError(t, err)
	u, err := url.Parse(res.GetUrl())
	require.NoError(t, err)
	q := u.Query()
	require.Equal(t, res.GetState(), q.Get("state"))
	require.Equal(t, "http://chat.example.com/login?login_type=gitee", q.Get("redirect_uri"))
	require.Equal(t, "S256", q.Get("code_challenge_method"))
	require.NotContains(t, res.GetUrl(), "the-client-secret")

	login := func(provider, state, redirect string) error {
		_, err := e.LoginOAuth(t.Context(), &authv1.LoginOAuthRequest{Provider: provider, Code: octocat, State: state, RedirectUri: redirect})
		return err
	}
	require.NoError(t, login("github", res.GetState(), ""))
	verifier := p.lastForm().Get("code_verifier")
	require.Len(t, verifier, 43, "PKCE")
	require.Equal(t, q.Get("code_challenge"), base64.RawURLEncoding.EncodeToString(digest(verifier)))
	require.NotContains(t, res.GetState(), verifier)
	requireReason(t, "oauth_state_invalid", login("github", res.GetState(), ""), "used")
	for _, s := range []string{"x", strings.Repeat("A", 43), strings.Repeat("A", 75), "null", strings.Repeat("A", 5000)} {
		requireReason(t, "oauth_state_invalid", login("github", s, ""))
	}
	fresh := func() string {
		res, err := e.OAuthURL(t.Context(), &authv1.OAuthURLRequest{Provider: "gitee", RedirectUri: "http://chat.example.com/other"})
		require.NoError(t, err)
		return res.GetState()
	}
	requireReason(t, "oauth_state_invalid", login("github", fresh(), ""), "another provider's")
	requireReason(t, "oauth_state_invalid", login("gitee", fresh(), "http://chat.example.com/login?login_type=gitee"), "another redirect")
	require.NoError(t, login("gitee", fresh(), ""))
	require.Equal(t, "http://chat.example.com/other", p.lastForm().Get("redirect_uri"))

	_, err = e.OAuthURL(t.Context(), &authv1.OAuthURLRequest{Provider: "github", RedirectUri: "http://evil.example.com/"})
	requireReason(t, "oauth_redirect_invalid", err)
	requireReason(t, "oauth_redirect_invalid", login("github", "", "http://chat.example.com.evil.example/other"))
	require.NoError(t, login("github", "", ""), "the unmodified web client has no state")

	strict := e.replica(debugMode, p.configure, func(c *Config) { c.OAuth.RequireState = true })
	_, err = strict.oauth("github", octocat)
	requireReason(t, "oauth_state_invalid", err)
}

// Anybody may ask for states without end: they take no memory until one is used.
func TestOAuthURL_StoresNothing(t *testing.T) {
	e, _ := newOAuthEnv(t)
	before := e.rdb.DBSize(t.Context()).Val()
	for range 100 {
		_, err := e.OAuthURL(t.Context(), &authv1.OAuthURLRequest{Provider: "github"})
		require.NoError(t, err)
	}
	require.Equal(t, before, e.rdb.DBSize(t.Context()).Val())
	e.redis.Kill()
	_, err := e.OAuthURL(t.Context(), &authv1.OAuthURLRequest{Provider: "github"})
	require.NoError(t, err)
}

func TestOAuth_StateCannotBeMadeUp(t *testing.T) {
	e, _ := newOAuthEnv(t)
	res, err := e.OAuthURL(t.Context(), &authv1.OAuthURLRequest{Provider: "github"})
	require.NoError(t, err)
	state := res.GetState()
	login := func(state string) error {
		_, err := e.LoginOAuth(t.Context(), &authv1.LoginOAuthRequest{Provider: "github", Code: octocat, State: state})
		return err
	}
	raw, err := base64.RawURLEncoding.DecodeString(state)
	require.NoError(t, err)
	for i := range raw { // the nonce, the end and the MAC
		forged := slices.Clone(raw)
		forged[i] ^= 1
		requireReason(t, "oauth_state_invalid", login(base64.RawURLEncoding.EncodeToString(forged)), "byte %d", i)
	}
	for _, bad := range []string{state[1:], state + "A", state[:40] + "\n" + state[41:], strings.ToLower(state), base64.RawURLEncoding.EncodeToString(make([]byte, 56))} {
		requireReason(t, "oauth_state_invalid", login(bad))
	}
	// The last character has two bits to spare: spelled otherwise it is the same state.
	twin := state[:len(state)-1] + string(base64URL[strings.IndexByte(base64URL, state[len(state)-1])^1])
	require.NoError(t, login(state))
	for _, used := range []string{state, twin} {
		requireReason(t, "oauth_state_invalid", login(used))
	}
}

const base64URL = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

func TestOAuth_StateEndsByTheClockOfTheDatabase(t *testing.T) {
	home, p := newOAuthEnv(t)
	start := time.Now().Add(-time.Hour)
	at := func(d time.Duration) *env { return home.at(start.Add(d), debugMode, p.configure) }
	e := at(0)
	state := func() string {
		res, err := e.OAuthURL(t.Context(), &authv1.OAuthURLRequest{Provider: "github"})
		require.NoError(t, err)
		return res.GetState()
	}
	login := func(e *env, state string) error {
		_, err := e.LoginOAuth(t.Context(), &authv1.LoginOAuthRequest{Provider: "github", Code: octocat, State: state})
		return err
	}
	require.NoError(t, login(at(stateTTL-time.Minute), state()))
	requireReason(t, "oauth_state_invalid", login(at(stateTTL+time.Minute), state()))
	requireReason(t, "oauth_state_invalid", login(at(-time.Minute), state()), "the clock was set back: it would outlive the memory of its use")
}

func TestOAuth_ParallelUseOfAStateHasOneWinner(t *testing.T) {
	e, p := newOAuthEnv(t)
	other := e.replica(debugMode, p.configure)
	res, err := e.OAuthURL(t.Context(), &authv1.OAuthURLRequest{Provider: "github"})
	require.NoError(t, err)
	var won atomic.Int64
	var wg sync.WaitGroup
	for i := range 20 {
		s := []*env{e, other}[i%2]
		wg.Go(func() {
			_, err := s.LoginOAuth(context.Background(), &authv1.LoginOAuthRequest{Provider: "github", Code: octocat, State: res.GetState()})
			if err == nil {
				won.Add(1)
			} else if im.ReasonOf(err) != "oauth_state_invalid" {
				t.Errorf("unexpected: %v", err)
			}
		})
	}
	wg.Wait()
	require.EqualValues(t, 1, won.Load())
}

func TestOAuth_NameCollisionsGetASuffix(t *testing.T) {
	e, _ := newOAuthEnv(t)
	e.registerAs("o@example.com", "Octocat")
	names := map[string]bool{}
	for i, provider := range []string{"github", "gitee", "github", "gitee", "github"} {
		l, err := e.oauth(provider, fmt.Sprintf(`{"id":%d,"login":"octocat","name":"octocat"}`, i+1))
		require.NoError(t, err)
		require.False(t, names[l.GetUser().GetName()])
		names[l.GetUser().GetName()] = true
	}
	require.True(t, names["octocat-github"] && names["octocat-gitee"] && names["octocat-3"], "%v", names)

	long := strings.Repeat("n", 50)
	e.registerAs("p@example.com", long)
	l, err := e.oauth("github", `{"id":77,"login":"`+long+`"}`)
	require.NoError(t, err)
	require.Equal(t, long[:43]+"-github", l.GetUser().GetName())
}

func TestOAuth_FirstLoginTwiceAtOnceMakesOneAccount(t *testing.T) {
	e, p := newOAuthEnv(t)
	other := e.replica(debugMode, p.configure)
	var mu sync.Mutex
	ids := map[int64]int{}
	created := 0
	var wg sync.WaitGroup
	for i := range 10 {
		s := []*env{e, other}[i%2]
		wg.Go(func() {
			res, err := s.LoginOAuth(context.Background(), &authv1.LoginOAuthRequest{Provider: "github", Code: octocat})
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			ids[res.GetLogin().GetUser().GetId()]++
			if res.GetLogin().GetCreated() {
				created++
			}
		})
	}
	wg.Wait()
	require.Len(t, ids, 1)
	require.Equal(t, 1, created)
}

func TestOAuth_RefusesAddressesInside(t *testing.T) {
	p := newFakeProvider(t)
	c := OAuthConfig{Timeout: time.Second}
	client := newProviderClient(c)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, p.URL+"/user", nil)
	require.NoError(t, err)
	_, err = client.Do(req) //nolint:bodyclose // there is no answer
	require.ErrorIs(t, err, errPrivateAddress)
	_, port, _ := strings.Cut(strings.TrimPrefix(p.URL, "http://"), ":")
	req, err = http.NewRequestWithContext(t.Context(), http.MethodGet, "http://localhost:"+port+"/user", nil)
	require.NoError(t, err)
	_, err = client.Do(req) //nolint:bodyclose // there is no answer
	require.ErrorIs(t, err, errPrivateAddress, "by name: the check is after resolution")

	for _, a := range []string{
		"127.0.0.1:80", "127.9.9.9:80", "10.0.0.1:80", "172.16.0.1:80", "172.31.255.255:80", "192.168.1.1:80", "169.254.169.254:80",
		"0.0.0.0:80", "0.1.2.3:80", "100.64.0.1:80", "224.0.0.1:80", "255.255.255.255:80", "240.0.0.1:80", "198.18.0.1:80",
		"[::1]:80", "[::]:80", "[fe80::1]:80", "[fe80::1%eth0]:80", "[fc00::1]:80", "[fd12::1]:80", "[ff02::1]:80",
		"[::ffff:127.0.0.1]:80", "[::ffff:10.0.0.1]:80", "[64:ff9b::7f00:1]:80", "[2002:7f00:1::]:80", "garbage", "",
	} {
		require.ErrorIs(t, refusePrivate(a), errPrivateAddress, a)
	}
	for _, a := range []string{"140.82.121.4:443", "[2606:4700::1]:443", "172.32.0.1:443", "8.8.8.8:53"} {
		require.NoError(t, refusePrivate(a), a)
	}
}

func FuzzParseUser(f *testing.F) {
	for _, s := range []string{octocat, `{"id":1}`, `null`, `{"id":1,"login":null,"email":5}`, `{"id":1e2}`, `{"id":1,"login":"\u202e"}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, name := range []string{"github", "gitee"} {
			who, err := (&provider{name: name}).parseUser(body)
			if err != nil {
				continue
			}
			if who.ID <= 0 || who.ID > im.MaxID {
				t.Fatalf("id %d", who.ID)
			}
			candidates := nameCandidates(name, who)
			if len(candidates) == 0 {
				t.Fatalf("no name for %q", body)
			}
			for _, n := range candidates {
				if _, err := cleanName(n); err != nil {
					t.Fatalf("bad name %q", n)
				}
			}
			if a := who.avatar(); a != "" && !strings.HasPrefix(a, "https://") && !strings.HasPrefix(a, "http://") {
				t.Fatalf("avatar %q", a)
			}
			if len([]rune(who.bio())) > maxBioRunes {
				t.Fatal("bio too long")
			}
		}
	})
}
