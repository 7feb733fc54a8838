// Package failpoint makes a process fail on purpose at a named step of its work.
//
// In a normal build Hit is an empty function that the compiler removes together
// with the branch around it: a point costs nothing and cannot be switched on.
// With -tags failpoint each point does what IM_FAILPOINTS says:
//
//	IM_FAILPOINTS="logic.after_commit=exit*1;gateway.on_result=sleep(2s)@3"
//
// The actions are
//
//	error       Hit returns ErrInjected; what that means is up to the point
//	panic       Hit panics
//	exit        the process ends at once, as if killed
//	sleep(2s)   Hit takes that long, then returns nil
//
// @N lets the first N-1 hits pass, *M acts at most M times. IM_FAILPOINTS_FILE
// names a file with more of the same, which is read again when it changes, so
// that a test can arm processes that run. With a file, *M counts over all
// processes and their lives that share it: each act first makes the file
// FILE.NAME.1, .2 and so on, which is also the proof that it happened.
package failpoint

import "errors"

// ErrInjected is what Hit returns for the action error.
var ErrInjected = errors.New("failpoint: injected error")
