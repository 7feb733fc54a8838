package rest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	logicv1 "im-services/api/proto/logic/v1"
	pushv1 "im-services/api/proto/push/v1"
	"im-services/internal/im"
)

// firstPage is a page of bob's messages to alice that she has not been delivered.
func firstPage(rows int, text string) *logicv1.HistoryResponse {
	resp := &logicv1.HistoryResponse{Total: int64(rows), Undelivered: true}
	for i := range int64(rows) {
		resp.Messages = append(resp.Messages, &pushv1.Message{
			Id: 811 + i, Seq: 5 + i, ConversationId: 77, Kind: 1, SenderId: 35, ToId: 34, Type: 1, Text: text, SentAtMs: at, Status: 1,
		})
	}
	return resp
}

// listen serves the edge on a socket. Each request's context is put on the channel.
func (e *edge) listen() (*httptest.Server, <-chan context.Context) {
	requests := make(chan context.Context, 16)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests <- r.Context()
		e.handler.ServeHTTP(w, r)
	}))
	e.t.Cleanup(srv.Close)
	return srv, requests
}

const markDelivered = "MessageService/MarkDelivered"

// D12: who has the first page does not get its messages again, even if he connects
// as soon as he has it.
func TestHistory_CountsBeforeTheClientCanAct(t *testing.T) {
	e := newEdge(t)
	e.on("MessageService/History", firstPage(3, "x"), nil)
	srv, _ := e.listen()
	for i, path := range []string{"/api/messages?to_id=35", "/api/messages/groups?to_id=24&platform=app"} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, srv.URL+path, nil)
		require.NoError(t, err)
		req.Header.Set("Authorization", "alice")
		resp, err := srv.Client().Do(req)
		require.NoError(t, err)
		body, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.Equal(t, 3, strings.Count(string(body), `"Users"`), "%s", body)
		require.Len(t, e.calls(markDelivered), i+1)
	}
	calls := e.calls(markDelivered)
	require.True(t, proto.Equal(calls[0], &logicv1.MarkDeliveredRequest{UserId: 34, Platform: 1, ConversationId: 77, FirstSeq: 5, LastSeq: 7}), calls[0])
	require.True(t, proto.Equal(calls[1], &logicv1.MarkDeliveredRequest{UserId: 34, Platform: int32(im.PlatformApp), ConversationId: 77, FirstSeq: 5, LastSeq: 7}), calls[1])

	e.on(markDelivered, nil, errors.New("logic is away"))
	e.ok(e.get("/api/messages?to_id=35")) // it will come again

	e.on("MessageService/History", &logicv1.HistoryResponse{Messages: firstPage(3, "x").Messages}, nil)
	e.ok(e.get("/api/messages?to_id=35"))
	require.Len(t, e.calls(markDelivered), 3, "delivered already: nothing to say")
}

// A page that its client did not get is not delivered, whatever kept it from him.
func TestHistory_WhatDidNotArriveDoesNotCount(t *testing.T) {
	t.Run("he left while it was read", func(t *testing.T) {
		e := newEdge(t)
		srv, requests := e.listen()
		conn := dialEdge(t, srv)
		read := make(chan struct{})
		e.handle("MessageService/History", func(proto.Message) (proto.Message, error) {
			close(read)
			_ = conn.Close()
			ctx := <-requests
			<-ctx.Done()
			return firstPage(3, "x"), nil
		})
		ask(t, conn)
		<-read
		srv.Close() // waits for the handler
		require.Empty(t, e.calls(markDelivered))
	})
	t.Run("his line broke while it was written", func(t *testing.T) {
		e := newEdge(t)
		e.on("MessageService/History", firstPage(200, strings.Repeat("x", 60<<10)), nil) // more than sockets buffer
		srv, _ := e.listen()
		conn := dialEdge(t, srv)
		ask(t, conn)
		_, err := io.ReadFull(conn, make([]byte, 1000))
		require.NoError(t, err)
		require.NoError(t, conn.SetLinger(0))
		require.NoError(t, conn.Close())
		srv.Close()
		require.Empty(t, e.calls(markDelivered))
	})
	t.Run("he asked for the head alone", func(t *testing.T) {
		e := newEdge(t)
		e.on("MessageService/History", firstPage(3, "x"), nil)
		srv, _ := e.listen()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodHead, srv.URL+"/api/messages?to_id=35", nil)
		require.NoError(t, err)
		req.Header.Set("Authorization", "alice")
		resp, err := srv.Client().Do(req)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.Equal(t, 200, resp.StatusCode)
		require.Empty(t, e.calls(markDelivered))
	})
}

func dialEdge(t *testing.T, srv *httptest.Server) *net.TCPConn {
	t.Helper()
	conn, err := net.Dial("tcp", srv.Listener.Addr().String())
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	return conn.(*net.TCPConn)
}

func ask(t *testing.T, conn net.Conn) {
	t.Helper()
	askFor(t, conn, "/api/messages?to_id=35&pageSize=200")
}

func askFor(t *testing.T, conn net.Conn, path string) {
	t.Helper()
	_, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: x\r\nAuthorization: alice\r\n\r\n", path)
	require.NoError(t, err)
}

// Without auth people have no names, but what they said can be read.
func TestHistory_WithoutProfiles(t *testing.T) {
	e := newEdge(t)
	e.ok(e.get("/api/user/36")) // carol is known already
	e.on("AuthService/GetUsers", nil, im.E(im.KindUnavailable, "service_unavailable", nil))
	page := firstPage(3, "x")
	page.Messages[1].SenderId = 36
	e.on("MessageService/History", page, nil)
	r := e.ok(e.get("/api/messages?to_id=35"))
	require.Contains(t, r.data, `"Users":{"id":35,"name":"","email":"","avatar":"https://im.example/avatars/35.png"}`)
	require.Contains(t, r.data, `"Users":{"id":36,"name":"carol","email":"carol@example.com","avatar":"https://im.example/avatars/36.png"}`)
	r = e.ok(e.get("/api/messages/groups?to_id=24"))
	require.Contains(t, r.data, `"Users":{"id":35,"name":"","email":"",`)
	require.Len(t, e.calls(markDelivered), 2)
}
