package rest

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/go-chi/chi/v5"
	"github.com/stretchr/testify/require"
)

func loadDoc(t *testing.T) *openapi3.T {
	t.Helper()
	e := newEdge(t)
	r := e.send(httptest.NewRequest(http.MethodGet, "/swagger/openapi.json", nil))
	require.Equal(t, 200, r.status)
	doc, err := openapi3.NewLoader().LoadFromData(r.Body.Bytes())
	require.NoError(t, err)
	return doc
}

func TestOpenAPI_IsValidAndSoAreItsExamples(t *testing.T) {
	doc := loadDoc(t)
	require.True(t, strings.HasPrefix(doc.OpenAPI, "3.1"))
	require.NoError(t, doc.Validate(context.Background(), openapi3.EnableExamplesValidation()))
	for path, item := range doc.Paths.Map() {
		for method, op := range item.Operations() {
			media := op.Responses.Status(200).Value.Content["application/json"]
			if media == nil {
				continue
			}
			require.NotNil(t, media.Example, "%s %s has no example", method, path)
			require.NoError(t, media.Schema.Value.VisitJSON(media.Example, openapi3.EnableJSONSchema2020()), "%s %s", method, path)
		}
	}
}

// Every route is documented and every documented route exists.
func TestOpenAPI_IsTheRouter(t *testing.T) {
	doc := loadDoc(t)
	var documented []string
	for path, item := range doc.Paths.Map() {
		for method := range item.Operations() {
			documented = append(documented, method+" "+path)
		}
	}
	e := newEdge(t)
	router, ok := e.handler.(chi.Routes)
	require.True(t, ok)
	var routed []string
	require.NoError(t, chi.Walk(router, func(method, route string, _ http.Handler, _ ...func(http.Handler) http.Handler) error {
		if !strings.HasPrefix(route, "/swagger") {
			routed = append(routed, method+" "+route)
		}
		return nil
	}))
	slices.Sort(documented)
	slices.Sort(routed)
	require.Equal(t, routed, documented)
}

// What the handlers answer fits the schemas: the golden files are real answers.
func TestOpenAPI_FitsTheAnswers(t *testing.T) {
	doc := loadDoc(t)
	for file, where := range map[string]string{
		"user": "GET /api/user/{id}", "sessions": "GET /api/sessions", "sessions_none": "GET /api/sessions",
		"session_created": "POST /api/sessions", "friends": "GET /api/friends", "friends_none": "POST /api/friends",
		"friend": "GET /api/friends/{id}", "friend_none": "GET /api/friends/{id}", "friend_status": "GET /api/friends/status/{id}",
		"friend_status_offline": "GET /api/friends/status/{id}", "user_query": "GET /api/friends/userQuery", "user_query_none": "GET /api/friends/userQuery",
		"records": "GET /api/friends/record", "records_none": "GET /api/friends/record", "record_created": "POST /api/friends/record",
		"record_accepted": "PUT /api/friends/record", "record_refused": "PUT /api/friends/record", "groups": "GET /api/groups/list",
		"groups_none": "GET /api/groups/list", "group_members": "GET /api/groups/users/{id}", "invite": "POST /api/invite/{id}",
		"address": "POST /api/address/list", "sent_private": "POST /api/messages/private", "sent_group": "POST /api/messages/group",
		"history_private": "GET /api/messages", "history_private_nobody": "GET /api/messages", "history_group": "GET /api/messages/groups",
		"recall": "POST /api/messages/recall", "read": "POST /api/messages/read", "unread": "GET /api/messages/unread", "sync": "POST /api/sync",
		"refresh": "POST /api/auth/refresh", "ticket": "POST /api/auth/ws-ticket", "oauth_url": "GET /api/auth/oauthUrl", "logout": "POST /api/auth/logout",
	} {
		method, path, _ := strings.Cut(where, " ")
		item := doc.Paths.Value(path)
		require.NotNil(t, item, where)
		op := item.GetOperation(method)
		require.NotNil(t, op, where)
		raw, err := os.ReadFile(filepath.Join("testdata", file+".json"))
		require.NoError(t, err)
		var body any
		require.NoError(t, json.Unmarshal(raw, &body))
		schema := op.Responses.Status(200).Value.Content["application/json"].Schema.Value
		require.NoError(t, schema.VisitJSON(body, openapi3.EnableJSONSchema2020()), "%s: %s", where, file)
	}
}

func TestOpenAPI_SchemasRefuse(t *testing.T) {
	doc := loadDoc(t)
	schema := doc.Paths.Value("/api/sessions").Get.Responses.Status(200).Value.Content["application/json"].Schema.Value
	for _, bad := range []string{`{"code":200,"message":"m","data":{}}`, `{"code":200,"data":null}`, `{"code":"200","message":"m","data":null}`, `{"code":200,"message":"m","data":[{}]}`} {
		var v any
		require.NoError(t, json.Unmarshal([]byte(bad), &v))
		require.Error(t, schema.VisitJSON(v, openapi3.EnableJSONSchema2020()), bad)
	}
}

// The pages work without a network: whatever they load is served beside them.
func TestDocs_ArePartOfTheBinary(t *testing.T) {
	e := newEdge(t)
	get := func(path string) reply { return e.send(httptest.NewRequest(http.MethodGet, path, nil)) }
	link := regexp.MustCompile(`(?:src|href)="([^"#]+)"`)
	for _, page := range []string{"/swagger/index.html", "/swagger/asyncapi.html"} {
		r := get(page)
		require.Equal(t, 200, r.status)
		require.Equal(t, "text/html; charset=utf-8", r.Header().Get("Content-Type"))
		require.Contains(t, r.Header().Get("Content-Security-Policy"), "default-src 'self'")
		for _, m := range link.FindAllStringSubmatch(r.Body.String(), -1) {
			require.NotContains(t, m[1], "//", "nothing from elsewhere")
			require.Equal(t, 200, get("/swagger/"+m[1]).status, m[1])
		}
	}
	require.Equal(t, "text/javascript; charset=utf-8", get("/swagger/ui/swagger-ui-bundle.js").Header().Get("Content-Type"))
	require.Equal(t, "text/css; charset=utf-8", get("/swagger/ui/swagger-ui.css").Header().Get("Content-Type"))
	require.Equal(t, 200, get("/swagger/ui/LICENSE").status)
	require.Equal(t, "/swagger/index.html", get("/swagger/").Header().Get("Location"))
	require.Equal(t, 404, get("/swagger/ui/").status, "no listing")
	for _, path := range []string{"/swagger/nothing", "/swagger/ui/nothing.js", "/swagger/ui/.", "/swagger/ui/..", "/swagger/ui/%2e%2e"} {
		r := get(path)
		require.Equal(t, 404, r.status, path)
		require.Equal(t, 404, r.code, path)
	}

	off := newEdge(t, func(d *Deps) { d.Config.DocsOff = true })
	require.Equal(t, 404, off.get("/swagger/index.html").status)
	require.Equal(t, 404, off.get("/swagger/openapi.json").status)
}
