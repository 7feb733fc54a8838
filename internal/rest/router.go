package rest

import (
	"net/http"
	"strings"

	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"

	"im-services/internal/im"
)

// routes is the whole HTTP surface in one place.
func (a *api) routes() (http.Handler, error) {
	r := chi.NewRouter()
	r.Use(a.access, crossOrigin, harden, patience(a.Config.RequestTimeout), bothSpellings, middleware.GetHead, a.fixedFirst(r))
	r.NotFound(a.notFound)
	r.MethodNotAllowed(a.notAllowed(r))

	a.apiRoutes(r)
	r.Get("/files/{key}/{name}", a.serveFile)
	r.Get("/avatars/{file}", a.serveAvatar)
	if !a.Config.DocsOff {
		if err := docRoutes(r, a.Config.PublicURL, a.notFound); err != nil {
			return nil, err
		}
	}
	return r, nil
}

func (a *api) apiRoutes(r chi.Router) {
	r.Post("/api/auth/login", a.open(login))
	r.Post("/api/auth/registered", a.open(register))
	r.Post("/api/auth/sendEmailCode", a.open(sendEmailCode))
	r.Post("/api/auth/resetPassword", a.open(resetPassword))
	r.Get("/api/auth/githubLogin", a.open(oauthLogin))
	r.Get("/api/auth/oauthUrl", a.open(oauthURL))
	r.Post("/api/auth/refresh", a.open(refresh))
	r.Post("/api/auth/logout", a.authed(logout))
	r.Post("/api/auth/ws-ticket", a.authed(wsTicket))

	r.Get("/api/user/{id}", a.authed(getUser))
	r.Get("/api/address/list", a.authed(reading(addressList)))
	r.Post("/api/address/list", a.authed(reading(addressList)))

	r.Get("/api/sessions", a.authed(reading(listSessions)))
	r.Post("/api/sessions", a.authed(createSession))
	r.Put("/api/sessions/{id}", a.authed(updateSession))
	r.Delete("/api/sessions/{id}", a.authed(deleteSession))

	r.Get("/api/friends", a.authed(reading(listFriends)))
	r.Post("/api/friends", a.authed(reading(listFriends)))
	r.Get("/api/friends/record", a.authed(reading(listRequests)))
	r.Post("/api/friends/record", a.authed(requestFriend))
	r.Put("/api/friends/record", a.authed(answerRequest))
	r.Get("/api/friends/userQuery", a.authed(reading(userQuery)))
	r.Get("/api/friends/status/{id}", a.authed(friendStatus))
	r.Get("/api/friends/{id}", a.authed(getFriend))
	r.Delete("/api/friends/{id}", a.authed(deleteFriend))

	r.Get("/api/groups/list", a.authed(reading(listGroups)))
	r.Post("/api/groups/store", a.authed(createGroup))
	r.Post("/api/groups/applyJoin/{id}", a.authed(joinGroup))
	r.Post("/api/groups/createOrRemoveUser", a.authed(changeMembers))
	r.Get("/api/groups/users/{id}", a.authed(reading(listMembers)))
	r.Delete("/api/groups/{id}", a.authed(leaveGroup))
	r.Delete("/api/groups/logout/{id}", a.authed(leaveGroup))
	r.Post("/api/invite/{id}", a.authed(invite))

	r.Get("/api/groups/info/{id}", a.authed(getGroup))
	r.Put("/api/groups/info/{id}", a.authed(updateGroup))
	r.Put("/api/groups/{id}/announcement", a.authed(announce))
	r.Post("/api/groups/{id}/handOver", a.authed(handOver))
	r.Post("/api/groups/{id}/dissolve", a.authed(dissolve))
	r.Post("/api/groups/{id}/role", a.authed(setRole))
	r.Post("/api/groups/{id}/mute", a.authed(mute))

	r.Post("/api/messages/private", a.authed(sendMessage))
	r.Post("/api/messages/group", a.authed(sendMessage))
	r.Get("/api/messages", a.authed(reading(privateHistory)))
	r.Get("/api/messages/groups", a.authed(reading(groupHistory)))
	r.Post("/api/messages/recall", a.authed(recall))
	r.Post("/api/messages/video", a.authed(video))
	r.Post("/api/messages/read", a.authed(markRead))
	r.Get("/api/messages/unread", a.authed(reading(unread)))
	r.Post("/api/sync", a.authed(reading(syncChanges)))

	r.Post("/api/upload/file", a.authed(uploadFile))
}

func (a *api) notFound(w http.ResponseWriter, r *http.Request) {
	sink(w, r)
	a.fail(w, r, im.E(im.KindNotFound, "route_not_found", nil))
}

// notAllowed answers a known path with an unknown method and says which there are.
func (a *api) notAllowed(routes chi.Routes) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		methods, _ := methodsOf(routes, routedPath(r))
		w.Header().Set("Allow", strings.Join(append([]string{http.MethodOptions}, methods...), ", "))
		sink(w, r)
		a.fail(w, r, im.E(im.KindInvalid, "method_not_allowed", nil))
	}
}

// fixedFirst keeps a route with a parameter from taking the methods that a fixed
// path beside it lacks: no friend has the id "record".
func (a *api) fixedFirst(routes chi.Routes) func(http.Handler) http.Handler {
	refuse := a.notAllowed(routes)
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			method := r.Method
			if m := chi.RouteContext(r.Context()).RouteMethod; m != "" {
				method = m
			}
			path := routedPath(r)
			if pattern := routes.Find(chi.NewRouteContext(), method, path); pattern != "" && pattern != path {
				if _, fixed := methodsOf(routes, path); fixed {
					refuse(w, r)
					return
				}
			}
			next.ServeHTTP(w, r)
		})
	}
}

// methodsOf are the methods that a path has, and whether it is a fixed one: then
// those of a parameter that would fit it are not among them.
func methodsOf(routes chi.Routes, path string) (methods []string, fixed bool) {
	var byParameter []string
	for _, m := range []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodDelete} {
		switch routes.Find(chi.NewRouteContext(), m, path) {
		case "":
		case path:
			methods = append(methods, m)
		default:
			byParameter = append(byParameter, m)
		}
	}
	if len(methods) == 0 {
		return byParameter, false
	}
	return methods, true
}

// routedPath is the path that a request is routed by.
func routedPath(r *http.Request) string {
	if p := chi.RouteContext(r.Context()).RoutePath; p != "" {
		return p
	}
	return r.URL.Path
}
