package imclient

import "context"

// Cursors returns, for each conversation, the seq up to which this client holds
// everything.
func (c *Client) Cursors() []Cursor {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := make([]Cursor, 0, len(c.seen))
	for conv, s := range c.seen {
		out = append(out, Cursor{conv, s.floor})
	}
	return out
}

// Sync fetches over HTTP what this client misses, and shows it as if it had
// been pushed, until the server says that the client has everything.
func (c *Client) Sync(ctx context.Context, api *API) error {
	cursors := map[int64]int64{}
	for _, cur := range c.Cursors() {
		cursors[cur.Conversation] = cur.Seq
	}
	epoch := ""
	for {
		list := make([]Cursor, 0, len(cursors))
		for conv, seq := range cursors {
			list = append(list, Cursor{conv, seq})
		}
		answer, err := api.Sync(ctx, epoch, list)
		if err != nil {
			return err
		}
		epoch = answer.Epoch
		if answer.FullResync {
			clear(cursors)
			continue
		}
		for _, conv := range answer.Conversations {
			for _, raw := range conv.Messages {
				var f Frame
				if err := f.Parse(raw); err != nil {
					return err
				}
				if f.Code == CodeChat && (f.From != c.cfg.User.ID || f.Channel == Group) {
					c.arrived(&f, 0, OpSync)
				}
			}
			cursors[conv.Conversation] = conv.Seq
		}
		if answer.Complete {
			return nil
		}
	}
}
