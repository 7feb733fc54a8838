package conformance

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// provider is the base URL of a login provider of our own that the system was
// told to use as both GitHub and Gitee; "" when it was not.
var provider string

// serveProvider starts the provider. A code is the user document that it stands
// for; "refuse", "broken" and "down" are what they say.
func serveProvider(addr string) (stop func(), err error) {
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /token", func(w http.ResponseWriter, r *http.Request) {
		code := r.PostFormValue("code")
		w.Header().Set("Content-Type", "application/json")
		switch {
		case code == "refuse" || r.PostFormValue("client_secret") == "":
			_, _ = w.Write([]byte(`{"error":"bad_verification_code","error_description":"The code passed is incorrect or expired."}`))
		case code == "broken":
			_, _ = w.Write([]byte(`<html>`))
		default:
			_ = json.NewEncoder(w).Encode(map[string]string{"access_token": base64.RawURLEncoding.EncodeToString([]byte(code)), "token_type": "bearer"})
		}
	})
	mux.HandleFunc("GET /user", func(w http.ResponseWriter, r *http.Request) {
		doc, err := base64.RawURLEncoding.DecodeString(strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "))
		if err != nil || string(doc) == "down" {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		_, _ = w.Write(doc)
	})
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	go func() {
		if err := srv.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
			panic(err)
		}
	}()
	provider = "http://" + ln.Addr().String()
	return func() { _ = srv.Close() }, nil
}

// providerEnv is what tells the system's auth service to use the provider.
func providerEnv() map[string]string {
	env := map[string]string{"IM_AUTH_OAUTH_ALLOW_PRIVATE_ADDRESSES": "true", "IM_SECRETS_GITHUB": "github-secret", "IM_SECRETS_GITEE": "gitee-secret"}
	for _, name := range []string{"GITHUB", "GITEE"} {
		env["IM_AUTH_OAUTH_"+name+"_CLIENT_ID"] = "client"
		env["IM_AUTH_OAUTH_"+name+"_AUTHORIZE_URL"] = provider + "/authorize"
		env["IM_AUTH_OAUTH_"+name+"_TOKEN_URL"] = provider + "/token"
		env["IM_AUTH_OAUTH_"+name+"_USER_URL"] = provider + "/user"
	}
	return env
}

// withProvider logs in at the provider as the client does after it came back.
func withProvider(t *testing.T, doc string, query ...string) answer {
	t.Helper()
	v := url.Values{"code": {doc}}
	for i := 0; i+1 < len(query); i += 2 {
		v.Set(query[i], query[i+1])
	}
	return nobody(t).get("/auth/githubLogin?" + v.Encode())
}

// providerID is a user of the provider that nobody was before.
func providerID() int64 { return nextKey() % 1e15 }

// An account made by a provider has no password, least of all one that can be
// guessed from what everybody sees.
func TestDefect23_ProviderAccountsHaveNoPassword(t *testing.T) {
	id := providerID()
	email := fmt.Sprintf("p%d@example.com", id)
	doc := fmt.Sprintf(`{"id":%d,"login":"p%d","email":%q,"avatar_url":null,"bio":null}`, id, id, email)
	got := withProvider(t, doc)
	if provider == "" {
		got.refused(500)
	} else {
		got.ok()
	}
	for _, guess := range []string{fmt.Sprintf("%dpassword", id), fmt.Sprint(id), "password", email, " "} {
		nobody(t).post("/auth/login", "email", email, "password", guess).refused(500)
	}
}

func TestOAuth_ProviderAccounts(t *testing.T) {
	if provider == "" {
		withProvider(t, `{"id":1,"login":"x"}`).refused(500) // no provider, no login
		return
	}
	id := providerID()
	doc := fmt.Sprintf(`{"id":%d,"login":"hub%d","name":"n","email":null,"avatar_url":"https://im.example/a.png","bio":null}`, id, id)
	first := withProvider(t, doc, "login_type", "github").ok().object()
	for _, member := range []string{"id", "uid", "name", "avatar", "email", "token", "expire_time", "ttl"} {
		require.Contains(t, first, member)
	}
	require.Equal(t, fmt.Sprintf("hub%d", id), first["name"])
	require.Equal(t, "https://im.example/a.png", first["avatar"])
	u := nobody(t)
	u.Token, _ = first["token"].(string)
	require.NotNil(t, u.session("to_id", 1), "the bot's session, as everybody has (D3)")
	for _, kind := range []string{"", "github", "undefined"} {
		require.Equal(t, first["id"], withProvider(t, doc, "login_type", kind).ok().object()["id"], "the same account: %q", kind)
	}
	tea := withProvider(t, strings.Replace(doc, `"name":"n"`, fmt.Sprintf(`"name":"tea%d"`, id), 1), "login_type", "gitee").ok().object()
	require.NotEqual(t, first["id"], tea["id"], "the same number at another provider is somebody else")
	require.Equal(t, fmt.Sprintf("tea%d", id), tea["name"])

	known := newUser(t)
	other := withProvider(t, fmt.Sprintf(`{"id":%d,"login":"x%d","email":%q}`, providerID(), id, known.Email)).ok().object()
	require.NotEqual(t, known.ID, num(other["id"]), "an e-mail proves nothing")
}

func TestDefect33_ProviderTroubleIsAnAnswer(t *testing.T) {
	for _, doc := range []string{
		"refuse", "broken", "down", `{}`, `{"id":null,"login":"x"}`, `{"id":"x","login":"x"}`, `{"id":0,"login":"x"}`, `{"login":"x"}`,
		`{"message":"Bad credentials"}`, `[]`, `null`, `<html>`, strings.Repeat("[", 1000),
	} {
		withProvider(t, doc).refused(500)
		withProvider(t, doc, "login_type", "gitee").refused(500)
	}
	withProvider(t, fmt.Sprintf(`{"id":%d,"login":"s"}`, providerID()), "state", "made up").refused(500)
	if provider == "" {
		require.Equal(t, "provider_off", nobody(t).get("/auth/oauthUrl").refused(500).reason)
		return
	}
	nobody(t).get("/auth/oauthUrl?redirect_uri=https%3A%2F%2Felsewhere.example%2F").refused(500)
	start := nobody(t).get("/auth/oauthUrl?login_type=github").ok().object()
	state, _ := start["state"].(string)
	page, _ := start["url"].(string)
	require.NotEmpty(t, state)
	require.Contains(t, page, "state="+state)
	doc := fmt.Sprintf(`{"id":%d,"login":"st%d"}`, providerID(), providerID())
	withProvider(t, doc, "state", state, "login_type", "gitee").refused(500) // another provider's
	withProvider(t, doc, "state", state).ok()
	withProvider(t, doc, "state", state).refused(500) // once
}
