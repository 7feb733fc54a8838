package rest

import (
	"embed"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"

	"github.com/go-chi/chi/v5"
	"gopkg.in/yaml.v3"
)

// The documentation is part of the binary: it needs no network and cannot be of
// another version. A test holds it against the router.
//
//go:embed docs
var docFiles embed.FS

// docPolicy lets the pages of the documentation run their own scripts only.
// Swagger UI writes style attributes, and pictures as data URLs.
const docPolicy = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; object-src 'none'; base-uri 'none'; frame-ancestors 'none'"

// docRoutes serves the documentation under /swagger/.
func docRoutes(r chi.Router, publicURL string, notFound http.HandlerFunc) error {
	openapi, err := openAPI(publicURL)
	if err != nil {
		return err
	}
	asyncapi, err := docFiles.ReadFile("docs/asyncapi.yaml")
	if err != nil {
		return fmt.Errorf("rest: %w", err)
	}
	asyncPage, err := asyncAPIPage(asyncapi)
	if err != nil {
		return err
	}
	index, err := docFiles.ReadFile("docs/index.html")
	if err != nil {
		return fmt.Errorf("rest: %w", err)
	}
	initializer, err := docFiles.ReadFile("docs/initializer.js")
	if err != nil {
		return fmt.Errorf("rest: %w", err)
	}
	ui, err := fs.Sub(docFiles, "docs/ui")
	if err != nil {
		return fmt.Errorf("rest: %w", err)
	}
	const html = "text/html; charset=utf-8"
	redirect := http.RedirectHandler("/swagger/index.html", http.StatusFound)
	r.Get("/swagger", redirect.ServeHTTP)
	r.Get("/swagger/", redirect.ServeHTTP)
	r.Get("/swagger/index.html", page(html, index))
	r.Get("/swagger/initializer.js", page("text/javascript; charset=utf-8", initializer))
	r.Get("/swagger/openapi.json", page("application/json; charset=utf-8", openapi))
	r.Get("/swagger/asyncapi.yaml", page("application/yaml; charset=utf-8", asyncapi))
	r.Get("/swagger/asyncapi.html", page(html, asyncPage))
	files := http.StripPrefix("/swagger/ui/", http.FileServerFS(ui))
	r.Get("/swagger/ui/{file}", func(w http.ResponseWriter, r *http.Request) {
		if f, err := fs.Stat(ui, chi.URLParam(r, "file")); err != nil || f.IsDir() {
			notFound(w, r)
			return
		}
		w.Header().Set("Cache-Control", "public, max-age=86400")
		files.ServeHTTP(w, r)
	})
	return nil
}

func page(contentType string, content []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		h := w.Header()
		h.Set("Content-Type", contentType)
		h.Set("Content-Security-Policy", docPolicy)
		h.Set("Cache-Control", "no-cache")
		_, _ = w.Write(content) // the client is gone: there is nobody to tell
	}
}

// openAPI is the OpenAPI document as JSON. Its server is wherever the document
// came from, so that trying things out is never a cross-origin call.
func openAPI(publicURL string) ([]byte, error) {
	src, err := docFiles.ReadFile("docs/openapi.yaml")
	if err != nil {
		return nil, fmt.Errorf("rest: %w", err)
	}
	var doc map[string]any
	if err := yaml.Unmarshal(src, &doc); err != nil {
		return nil, fmt.Errorf("rest: openapi.yaml: %w", err)
	}
	root := "/"
	if u, err := url.Parse(publicURL); err == nil && u.Path != "" {
		root = u.Path
	}
	doc["servers"] = []map[string]string{{"url": root}}
	out, err := json.Marshal(doc)
	if err != nil {
		return nil, fmt.Errorf("rest: openapi.yaml: %w", err)
	}
	return out, nil
}
