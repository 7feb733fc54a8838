package conformance

import (
	"fmt"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"gopkg.in/yaml.v3"
)

// reasons is the list of errors the system documents, by reason.
func reasons(t *testing.T) map[string]struct {
	REST   int
	ZH, EN string
} {
	t.Helper()
	raw, err := os.ReadFile("../catalog/errors.yaml")
	require.NoError(t, err)
	var out map[string]struct {
		REST   int
		ZH, EN string
	}
	require.NoError(t, yaml.Unmarshal(raw, &out))
	return out
}

// elsewhere are the documented errors that this table does not provoke, and why.
var elsewhere = map[string]string{
	"internal": fault, "service_unavailable": fault, "outcome_unknown": fault, "answer_lost": fault, "auth_outcome_unknown": fault, "friend_outcome_unknown": fault,
	"friend_change_pending": fault, "store_failed": fault, "store_unavailable": fault, "routes_unavailable": fault, "shutting_down": fault,
	"mail_not_sent": fault, "id_allocator_behind": fault, "storage_full": fault,

	"overloaded": limit, "auth_busy": limit, "group_busy": limit, "uploads_busy": limit, "downloads_busy": limit, "upload_quota_reached": limit, "reads_busy": limit, "bodies_busy": limit, "auth_too_often": limit, "auth_too_many_ids": limit,
	"friend_limit": limit, "friend_request_limit": limit, "friend_too_many_users": limit, "group_full": limit, "groups_joined_limit": limit, "groups_limit": limit, "groups_made_limit": limit, "groups_owned_limit": limit, "too_many_users": limit,
	"group_password_too_often": limit, "body_too_slow": "takes half a minute", "file_too_large": "TestUpload_TooLargeIsAnAnswer",

	"code_wrong": "debug mode takes any code", "account_banned": "TestG16_BanEndsEveryLoginAndAllowsNoOther", "oauth_failed": atProvider, "oauth_redirect_invalid": atProvider, "oauth_state_invalid": atProvider, "provider_off": atProvider,

	"frame_code_unknown": socketOnly, "frame_invalid": socketOnly, "frame_key_repeated": socketOnly, "receipt_invalid": socketOnly,
	"sender_mismatch": socketOnly, "rate_limited": socketOnly, "displaced": socketOnly, "token_revoked": socketOnly, "ticket_invalid": socketOnly,
	"handshake_invalid": socketOnly, "origin_refused": socketOnly, "connection_displaced": socketOnly,

	"token_expired": internally, "token_invalid": internally, "connection_invalid": internally, "event_invalid": internally,
	"sender_missing": internally, "seq_invalid": internally, "to_id_invalid": internally, "upload_invalid": internally, "upload_conflict": internally,
}

const (
	fault      = "needs a fault of the system"
	limit      = "needs more load than a shared system should get"
	atProvider = "TestDefect33_ProviderTroubleIsAnAnswer"
	socketOnly = "said on the socket"
	internally = "said between services; the edge refuses it before or says it in other words"
)

// Every documented error is provoked and answers with its code, its reason and its
// text, in Chinese by default and in English for those who ask for it.
func TestErrors(t *testing.T) {
	us := newUsers(t, 6)
	a, friend, member, stranger, asker, asked := us[0], us[1], us[2], us[3], us[4], us[5]
	befriend(a, friend)
	befriend(a, member)
	asker.ask(a)
	a.ask(asked)
	group := a.newGroup(member)
	muted := a.newGroup(member)
	a.post(fmt.Sprintf("/groups/%d/mute", muted), "seconds", 600).ok()
	hushed := a.newGroup(member)
	a.post(fmt.Sprintf("/groups/%d/mute", hushed), "user_id", member.ID, "seconds", 600).ok()
	locked := num(a.post("/groups/store", "name", "locked", "info", "about", "avatar", base+"/avatars/1.png", "theme", "a", "is_pwd", 1, "password", "sesame").ok().object()["id"])
	session := num(a.session("to_id", friend.ID)["id"])
	sent := a.say(friend, "once")

	with := func(u *user, path string, base []any, change ...any) answer {
		fields := slices.Clone(base)
		for i := 0; i+1 < len(change); i += 2 {
			fields = append([]any{change[i], change[i+1]}, fields...) // the first of two counts
		}
		return u.post(path, fields...)
	}
	message := func(u *user, change ...any) answer {
		return with(u, "/messages/private", []any{"msg_client_id", nextKey(), "msg_type", 1, "to_id", friend.ID, "channel_type", 1, "message", "x"}, change...)
	}
	store := func(u *user, change ...any) answer {
		return with(u, "/groups/store", []any{"name", "crew", "info", "about", "avatar", base + "/avatars/1.png", "theme", "a"}, change...)
	}
	account := func(u *user, change ...any) answer {
		return with(u, "/auth/registered", []any{"email", "e" + a.Email, "name", "e" + a.Name, "password", password, "password_repeat", password, "code", "1234"}, change...)
	}
	change := func(u *user, change ...any) answer {
		return with(u, "/groups/createOrRemoveUser", []any{"group_id", group, "type", 1, "select_user[]", friend.ID}, change...)
	}
	once := "once" + a.Email
	nobody(t).post("/auth/sendEmailCode", "email", once).ok()

	rows := map[string]struct {
		who  *user
		call func(u *user) answer
		code int // if it is another than the catalogue's
	}{
		"unauthorized":         {who: nobody(t), call: func(u *user) answer { return u.get("/sessions") }},
		"route_not_found":      {who: a, call: func(u *user) answer { return u.get("/nothing") }},
		"method_not_allowed":   {who: a, call: func(u *user) answer { return u.call(http.MethodPatch, "/sessions", nil, "") }},
		"refresh_invalid":      {who: nobody(t), call: func(u *user) answer { return u.post("/auth/refresh", "refresh_token", "x") }},
		"body_invalid":         {who: a, call: func(u *user) answer { return u.json(http.MethodPost, "/sessions", "{") }},
		"body_too_large":       {who: a, call: func(u *user) answer { return u.post("/sessions", "x", strings.Repeat("x", 1<<20)) }},
		"parameter_missing":    {who: a, call: func(u *user) answer { return u.post("/messages/recall") }},
		"id_invalid":           {who: a, call: func(u *user) answer { return u.get("/user/x") }},
		"user_not_found":       {who: a, call: func(u *user) answer { return u.get("/user/999999999") }},
		"number_invalid":       {who: a, call: func(u *user) answer { return u.post("/messages/read", "to_id", friend.ID, "seq", "x") }},
		"cursor_invalid":       {who: a, call: func(u *user) answer { return u.get(fmt.Sprintf("/messages?to_id=%d&page=x", friend.ID)) }},
		"platform_invalid":     {who: a, call: func(u *user) answer { return u.get(fmt.Sprintf("/messages?to_id=%d&platform=fridge", friend.ID)) }},
		"channel_type_invalid": {who: a, call: func(u *user) answer { return message(u, "channel_type", 3) }},

		"email_invalid":         {who: nobody(t), call: func(u *user) answer { return account(u, "email", "nope") }},
		"email_taken":           {who: nobody(t), call: func(u *user) answer { return account(u, "email", a.Email) }},
		"name_invalid":          {who: nobody(t), call: func(u *user) answer { return account(u, "name", " ") }},
		"name_taken":            {who: nobody(t), call: func(u *user) answer { return account(u, "name", a.Name) }},
		"password_invalid":      {who: nobody(t), call: func(u *user) answer { return account(u, "password", "short", "password_repeat", "short") }},
		"password_repeat_wrong": {who: nobody(t), call: func(u *user) answer { return account(u, "password_repeat", "other") }},
		"code_invalid":          {who: nobody(t), call: func(u *user) answer { return account(u, "code", "123") }},
		"email_type_invalid":    {who: nobody(t), call: func(u *user) answer { return account(u, "email_type", 3) }},
		"password_missing":      {who: nobody(t), call: func(u *user) answer { return u.post("/auth/login", "email", a.Email) }, code: 500},
		"login_failed":          {who: nobody(t), call: func(u *user) answer { return u.post("/auth/login", "email", a.Email, "password", "wrong1") }},
		"code_too_often":        {who: nobody(t), call: func(u *user) answer { return u.post("/auth/sendEmailCode", "email", once) }},
		"email_unknown": {who: nobody(t), call: func(u *user) answer {
			return u.post("/auth/sendEmailCode", "email", "unknown"+a.Email, "email_type", 2)
		}},
		"provider_invalid": {who: nobody(t), call: func(u *user) answer { return u.get("/auth/githubLogin?code=x&login_type=x") }},

		"information_invalid":           {who: a, call: func(u *user) answer { return u.post("/friends/record", "to_id", stranger.ID) }},
		"friend_self":                   {who: a, call: func(u *user) answer { return u.post("/friends/record", "to_id", u.ID, "information", "x") }},
		"friend_bot":                    {who: a, call: func(u *user) answer { return u.post("/friends/record", "to_id", 1, "information", "x") }},
		"friend_already":                {who: a, call: func(u *user) answer { return u.post("/friends/record", "to_id", friend.ID, "information", "x") }},
		"friend_request_waiting":        {who: a, call: func(u *user) answer { return u.post("/friends/record", "to_id", asked.ID, "information", "x") }},
		"reverse_request_waiting":       {who: a, call: func(u *user) answer { return u.post("/friends/record", "to_id", asker.ID, "information", "x") }},
		"friend_request_not_answerable": {who: a, call: func(u *user) answer { return u.put("/friends/record", "id", 999_999_999, "status", 1) }},
		"request_status_invalid":        {who: a, call: func(u *user) answer { return u.put("/friends/record", "id", 1, "status", 3) }},

		"session_type_invalid": {who: a, call: func(u *user) answer { return u.post("/sessions", "id", friend.ID, "type", 3) }},
		"session_self":         {who: a, call: func(u *user) answer { return u.post("/sessions", "id", u.ID, "type", 1) }},
		"session_not_member":   {who: stranger, call: func(u *user) answer { return u.post("/sessions", "id", group, "type", 2) }},
		"session_not_found":    {who: stranger, call: func(u *user) answer { return u.put(fmt.Sprintf("/sessions/%d", session), "note", "x") }},
		"top_status_invalid":   {who: a, call: func(u *user) answer { return u.put(fmt.Sprintf("/sessions/%d", session), "top_status", 2) }},
		"note_too_long": {who: a, call: func(u *user) answer {
			return u.put(fmt.Sprintf("/sessions/%d", session), "note", strings.Repeat("x", 256))
		}},

		"group_name_invalid":     {who: a, call: func(u *user) answer { return store(u, "name", "x") }},
		"group_info_invalid":     {who: a, call: func(u *user) answer { return store(u, "info", "x") }},
		"avatar_invalid":         {who: a, call: func(u *user) answer { return store(u, "avatar", "javascript:1") }},
		"group_theme_missing":    {who: a, call: func(u *user) answer { return store(u, "theme", "") }},
		"is_pwd_invalid":         {who: a, call: func(u *user) answer { return store(u, "is_pwd", 2) }},
		"group_password_missing": {who: a, call: func(u *user) answer { return store(u, "is_pwd", 1) }},
		"select_not_friends":     {who: a, call: func(u *user) answer { return store(u, "select_user[]", stranger.ID) }},
		"type_invalid":           {who: a, call: func(u *user) answer { return change(u, "type", 3) }},
		"selection_empty": {who: a, call: func(u *user) answer {
			return u.post("/groups/createOrRemoveUser", "group_id", group, "type", 1)
		}},
		"group_role_required":  {who: member, call: func(u *user) answer { return change(u) }},
		"group_already_member": {who: member, call: func(u *user) answer { return u.post(fmt.Sprintf("/groups/applyJoin/%d", group)) }},
		"group_not_found":      {who: a, call: func(u *user) answer { return u.post("/groups/applyJoin/999999999") }},
		"group_password_wrong": {who: stranger, call: func(u *user) answer {
			return u.post(fmt.Sprintf("/groups/applyJoin/%d", locked), "password", "wrong")
		}},
		"invite_invalid": {who: stranger, call: func(u *user) answer {
			return u.post(fmt.Sprintf("/groups/applyJoin/%d", locked), "token", "wrong")
		}},
		"group_not_joined": {who: stranger, call: func(u *user) answer { return u.del(fmt.Sprintf("/groups/%d", group)) }},
		"not_a_member":     {who: stranger, call: func(u *user) answer { return u.get(fmt.Sprintf("/groups/users/%d", group)) }},
		"group_member_not_found": {who: a, call: func(u *user) answer {
			return u.post(fmt.Sprintf("/groups/%d/role", group), "user_id", stranger.ID, "role", "admin")
		}},
		"role_invalid": {who: a, call: func(u *user) answer {
			return u.post(fmt.Sprintf("/groups/%d/role", group), "user_id", member.ID, "role", "king")
		}},
		"duration_invalid": {who: a, call: func(u *user) answer { return u.post(fmt.Sprintf("/groups/%d/mute", group), "seconds", -1) }},
		"announcement_too_long": {who: a, call: func(u *user) answer {
			return u.put(fmt.Sprintf("/groups/%d/announcement", group), "announcement", strings.Repeat("x", 2001))
		}},
		"group_muted":  {who: member, call: func(u *user) answer { return u.trySay(muted, 2, "x") }},
		"member_muted": {who: member, call: func(u *user) answer { return u.trySay(hushed, 2, "x") }},

		"client_msg_id_invalid": {who: a, call: func(u *user) answer { return message(u, "msg_client_id", 0) }},
		"client_msg_id_reused":  {who: a, call: func(u *user) answer { return message(u, "msg_client_id", num(sent["msg_client_id"])) }},
		"msg_type_invalid":      {who: a, call: func(u *user) answer { return message(u, "msg_type", 128) }},
		"message_empty":         {who: a, call: func(u *user) answer { return message(u, "message", "") }},
		"message_too_large":     {who: a, call: func(u *user) answer { return message(u, "message", strings.Repeat("x", 60<<10+1)) }},
		"not_friends":           {who: a, call: func(u *user) answer { return message(u, "to_id", stranger.ID) }},
		"data_invalid": {who: a, call: func(u *user) answer {
			return u.json(http.MethodPost, "/messages/private", fmt.Sprintf(`{"msg_client_id":%d,"msg_type":1,"to_id":%d,"message":"x","data":{}}`, nextKey(), friend.ID))
		}},
		"parameter_type_invalid": {who: a, call: func(u *user) answer {
			return u.json(http.MethodPost, "/messages/private", fmt.Sprintf(`{"msg_client_id":%d,"msg_type":1,"to_id":%d,"message":{}}`, nextKey(), friend.ID))
		}},
		"recall_refused": {who: friend, call: func(u *user) answer { return u.post("/messages/recall", "msg_id", num(sent["msg_id"])) }},
		"callee_offline": {who: a, call: func(u *user) answer { return u.post("/messages/video", "to_id", friend.ID) }},

		"file_missing":   {who: a, call: func(u *user) answer { return u.post("/upload/file", "file", "text") }},
		"file_empty":     {who: a, call: func(u *user) answer { return u.upload("a.txt", nil) }},
		"file_not_found": {who: a, call: func(u *user) answer { return u.callAt(http.MethodGet, "/files/0/x", nil, "") }},
	}
	documented := reasons(t)
	for _, reason := range slices.Sorted(maps.Keys(rows)) {
		t.Run(reason, func(t *testing.T) {
			row, entry := rows[reason], documented[reason]
			code := entry.REST
			if row.code != 0 {
				code = row.code
			}
			u := row.who.with(t)
			a := row.call(u).refused(code)
			require.Equal(t, entry.ZH, a.message)
			require.Equal(t, reason, a.reason)
			u.lang = "en-US,en;q=0.9,zh;q=0.1"
			require.Equal(t, entry.EN, row.call(u).refused(code).message)
		})
	}
	var missing []string
	for reason := range documented {
		_, here := rows[reason]
		if _, there := elsewhere[reason]; here == there {
			missing = append(missing, reason)
		}
	}
	slices.Sort(missing)
	require.Empty(t, missing, "documented, but neither provoked here nor explained (or both)")
}
