package check

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"im-services/internal/imclient"
)

// lie is somebody whom nobody knows and who writes to others in the name of
// their friends. Not one of his messages may be taken, whoever is named in it.
func (r *run) lie(ctx context.Context) {
	name := fmt.Sprintf("liar%d", time.Now().UnixMilli()%1e9)
	api := imclient.NewAPI(r.system.addresses[0], nil)
	var user imclient.User
	if !until(ctx, func(ctx context.Context) error {
		_ = api.Register(ctx, name+"@example.com", name, "secret123") // it may exist by now
		var err error
		user, err = api.Login(ctx, name+"@example.com", "secret123")
		return err
	}) {
		return
	}
	for n := 0; ctx.Err() == nil; n++ {
		dialCtx, cancel := context.WithTimeout(ctx, callLimit)
		socket, err := imclient.Dial(dialCtx, r.system.addresses[n%len(r.system.addresses)], user.Token, imclient.DialOptions{})
		cancel()
		if err == nil {
			r.lieOn(ctx, socket, n)
			socket.Cut()
		}
		sleep(ctx, time.Second)
	}
}

// lieOn writes lies to one connection until it ends, and reads the answers.
func (r *run) lieOn(ctx context.Context, socket *imclient.Socket, n int) {
	var g errgroup.Group
	defer func() { _ = g.Wait() }()
	g.Go(func() error {
		defer socket.Cut()
		for i := 1; ctx.Err() == nil; i++ {
			named := r.actors[i%len(r.actors)]
			to := named.targets[i%len(named.targets)]
			frame := imclient.AppendChat(nil, named.user.ID, &imclient.Outgoing{
				ClientID: int64(1e15) + int64(n)*1e6 + int64(i), Channel: to.channel, To: to.to, Text: canaryMark + "a lie",
			})
			if err := socket.Write(frame); err != nil {
				return err
			}
			sleep(ctx, 300*time.Millisecond)
		}
		return nil
	})
	for {
		f, err := socket.Read(callLimit)
		if err != nil {
			return
		}
		if f.Code == imclient.CodeAck {
			r.log.add(&Event{Type: imclient.Fail, Op: OpLeak, Text: "the server", Reason: "a message in another's name, which it acknowledged"})
		}
	}
}
