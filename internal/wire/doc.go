// Package wire is the client protocol: the only place that knows its legacy
// spellings. Everything a browser or an app reads from us or writes to us is
// spelled here and nowhere else, so that a stranger can learn the protocol from
// this package and the rest of the code can use the names of package im.
//
// # Flow
//
//	client                                   gateway
//	GET /im/connect?token=...                101, or 401 with a JSON body
//	                                         <- 200  what was missed, oldest first
//	{"msg_code":1004,"message":"ping"} ->    <- 1004 pong
//	{"msg_code":200, ...}              ->    <- 1005 stored for good
//	                                         or 1003 not a friend, not a member
//	                                         or  500 refused, with the reason
//	                                         or nothing for 5 s: unknown, send again
//	                                         <- 200  live messages of others
//	{"msg_code":1005,"msg_id":...}     ->    moves the delivered cursor (optional:
//	                                         a pong to a WebSocket ping does too)
//	{"msg_code":2002,"to_id":...}      ->    <- 2000 or 2001
//	{"msg_code":1000|1001|1002, ...}   ->    <- 1005 or 500
//	                                         <- 1000..1002, 2000, 2001, 2003, 2005, 600
//	                                         <- 2006 older messages were passed over
//	                                         <- 2004, then close 4001: a newer login
//
// One text frame holds one JSON object. Frames from clients are read strictly
// (see Decode); frames to clients are built by appending, without reflection.
//
// Every message of a conversation carries its seq, counted from 1 without gaps.
// A client that keeps the highest contiguous seq per conversation shows each
// message exactly once, whatever is pushed twice.
package wire
