package rest

import (
	"context"
	"encoding/json"
	"maps"
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

// Nothing is described for nobody.
func TestOpenAPI_EverySchemaIsUsed(t *testing.T) {
	raw, err := openAPI(public)
	require.NoError(t, err)
	for name := range loadDoc(t).Components.Schemas {
		require.Contains(t, string(raw), `"$ref":"#/components/schemas/`+name+`"`)
	}
}

// Swagger UI would send a list as one value else.
func TestOpenAPI_FormsRepeatLists(t *testing.T) {
	lists := 0
	for path, item := range loadDoc(t).Paths.Map() {
		for method, op := range item.Operations() {
			if op.RequestBody == nil {
				continue
			}
			for _, kind := range []string{"multipart/form-data", "application/x-www-form-urlencoded"} {
				media := op.RequestBody.Value.Content[kind]
				if media == nil {
					continue
				}
				for name, p := range media.Schema.Value.Properties {
					if !p.Value.Type.Is("array") || p.Value.Items.Value.Type.Is("object") { // those are one JSON text
						continue
					}
					lists++
					enc := media.Encoding[name]
					require.NotNil(t, enc, "%s %s: %s of %s", method, path, name, kind)
					require.Equal(t, "form", enc.Style)
					require.NotNil(t, enc.Explode)
					require.True(t, *enc.Explode)
				}
			}
		}
	}
	require.Equal(t, 4, lists)
}

// The lengths of the schemas are those that the handlers hold.
func TestOpenAPI_HasTheLengths(t *testing.T) {
	doc, e := loadDoc(t), newEdge(t)
	for _, c := range []struct{ where, field, reason string }{
		{"POST /api/auth/registered", "password", "password_invalid"},
		{"POST /api/auth/registered", "code", "code_invalid"},
		{"POST /api/auth/resetPassword", "password", "password_invalid"},
		{"POST /api/auth/resetPassword", "code", "code_invalid"},
		{"PUT /api/sessions/{id}", "note", "note_too_long"},
		{"POST /api/friends/record", "information", "information_invalid"},
		{"POST /api/groups/store", "name", "group_name_invalid"},
		{"POST /api/groups/store", "info", "group_info_invalid"},
		{"POST /api/groups/store", "theme", "group_theme_missing"},
		{"POST /api/groups/store", "password", "group_password_missing"},
		{"PUT /api/groups/info/{id}", "name", "group_name_invalid"},
		{"PUT /api/groups/info/{id}", "info", "group_info_invalid"},
		{"PUT /api/groups/info/{id}", "announcement", "announcement_too_long"},
		{"PUT /api/groups/{id}/announcement", "announcement", "announcement_too_long"},
		{"POST /api/messages/video", "message", "information_invalid"},
	} {
		method, path, _ := strings.Cut(c.where, " ")
		schema := doc.Paths.Value(path).GetOperation(method).RequestBody.Value.Content["application/json"].Schema.Value
		reasonAt := func(length uint64) string {
			body := maps.Clone(schema.Examples[0].(map[string]any)) //nolint:forcetypeassert // an object's example
			body[c.field] = strings.Repeat("x", int(length))        //nolint:gosec // small
			body["is_pwd"] = 1                                      // a group's password is read only then
			raw, err := json.Marshal(body)
			require.NoError(t, err)
			return e.json(method, strings.ReplaceAll(path, "{id}", "24"), string(raw)).reason
		}
		text := schema.Properties[c.field].Value
		require.NotNil(t, text.MaxLength, "%s: %s", c.where, c.field)
		require.NotEqual(t, c.reason, reasonAt(*text.MaxLength), "%s: %s", c.where, c.field)
		require.Equal(t, c.reason, reasonAt(*text.MaxLength+1), "%s: %s", c.where, c.field)
		if text.MinLength > 0 {
			require.NotEqual(t, c.reason, reasonAt(text.MinLength), "%s: %s", c.where, c.field)
			require.Equal(t, c.reason, reasonAt(text.MinLength-1), "%s: %s", c.where, c.field)
		}
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
