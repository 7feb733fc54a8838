package conformance

import (
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// walk reads a whole conversation page by page, from the newest to the oldest,
// and returns the rows' ids in the order of the conversation.
func (u *user) walk(path, id string, size int) []int64 {
	u.t.Helper()
	var got []int64
	page := ""
	for range 200 {
		var ids []int64
		for _, row := range u.page(fmt.Sprintf("%s&pageSize=%d&page=%s", path, size, page)) {
			ids = append(ids, num(row[id]))
		}
		if len(ids) == 0 {
			return got
		}
		require.True(u.t, slices.IsSorted(ids), "a page rises: %v", ids)
		require.LessOrEqual(u.t, len(ids), size)
		got = append(ids, got...)
		page = fmt.Sprint(ids[0])
	}
	require.Fail(u.t, "the pages have no end")
	return nil
}

// insist sends under one key until the message is taken: a busy system refuses,
// and repeating is safe.
func (u *user) insist(to int64, channel int, text string) {
	u.t.Helper()
	key := nextKey()
	patiently(func() answer {
		return u.post("/messages/private", "msg_client_id", key, "msg_type", 1, "to_id", to, "channel_type", channel, "message", text)
	}).ok()
}

// Whoever reads on while others write sees every message once: pages are cut by
// id, so what comes in meanwhile moves nothing.
func TestPages_UnderConcurrentWrites(t *testing.T) {
	us := newUsers(t, 3)
	a, b, c := us[0], us[1], us[2]
	befriend(a, b)
	befriend(a, c)
	group := a.newGroup(b, c)
	for i := range 15 {
		a.insist(b.ID, 1, fmt.Sprintf("before %d", i))
		a.insist(group, 2, fmt.Sprintf("before %d", i))
	}
	kinds := []struct {
		reader   *user
		path, id string
	}{
		{b, fmt.Sprintf("/messages?to_id=%d", a.ID), "id"},
		{a, fmt.Sprintf("/messages?to_id=%d", b.ID), "id"},
		{c, fmt.Sprintf("/messages/groups?to_id=%d", group), "Id"},
	}
	var writers, readers sync.WaitGroup
	writing := make(chan struct{})
	for _, w := range []func(i int){
		func(i int) { a.insist(b.ID, 1, fmt.Sprintf("a %d", i)) },
		func(i int) { b.insist(a.ID, 1, fmt.Sprintf("b %d", i)) },
		func(i int) { b.insist(group, 2, fmt.Sprintf("b %d", i)) },
		func(i int) { c.insist(group, 2, fmt.Sprintf("c %d", i)) },
	} {
		writers.Go(func() {
			for i := range 40 {
				w(i)
			}
		})
	}
	walks := make([][][]int64, len(kinds))
	for i, k := range kinds {
		readers.Go(func() {
			for {
				walks[i] = append(walks[i], k.reader.walk(k.path, k.id, 7))
				select {
				case <-writing:
					return
				default:
				}
			}
		})
	}
	writers.Wait()
	close(writing)
	readers.Wait()
	for i, k := range kinds {
		all := k.reader.walk(k.path, k.id, 200)
		require.True(t, slices.IsSorted(all))
		require.Len(t, slices.Compact(slices.Clone(all)), len(all), "no row twice")
		require.GreaterOrEqual(t, len(all), 15+80)
		require.Greater(t, len(walks[i]), 1)
		for _, got := range walks[i] {
			require.NotEmpty(t, got)
			newest := got[len(got)-1]
			end, found := slices.BinarySearch(all, newest)
			require.True(t, found)
			require.Equal(t, all[:end+1], got, "%s: all that there was, once", k.path)
		}
		require.Equal(t, all, k.reader.walk(k.path, k.id, 7))
	}
}

// A cursor need not be a row of the conversation, nor one that still is.
func TestPages_CursorsOfOtherPlaces(t *testing.T) {
	us := newUsers(t, 3)
	a, b, c := us[0], us[1], us[2]
	befriend(a, b)
	befriend(a, c)
	var here, there []int64
	for i := range 6 {
		here = append(here, num(a.say(b, fmt.Sprint(i))["msg_id"]))
		there = append(there, num(a.say(c, fmt.Sprint(i))["msg_id"]))
	}
	for _, cursor := range append(slices.Clone(there), here[0], here[0]-1, here[5]+1, 1, 1<<53-1) {
		want := []int64{}
		for _, id := range here {
			if id < cursor {
				want = append(want, id)
			}
		}
		got := []int64{}
		for _, row := range b.page(fmt.Sprintf("/messages?to_id=%d&pageSize=20&page=%d", a.ID, cursor)) {
			got = append(got, num(row["id"]))
		}
		require.Equal(t, want, got, "rows with an id below %d", cursor)
	}
	a.post("/messages/recall", "msg_id", here[2]).ok()
	require.Len(t, b.page(fmt.Sprintf("/messages?to_id=%d&page=%d", a.ID, here[2])), 2, "a recalled row is still a cursor")
}
