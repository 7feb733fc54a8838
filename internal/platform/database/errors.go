package database

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"io"
	"net"
	"os"
	"syscall"

	"github.com/go-sql-driver/mysql"
)

// ErrCommitUnknown marks a transaction of which nobody can say whether it was
// committed: the connection was lost between COMMIT and its answer. The caller
// must find out by reading, or report "unknown"; never simply repeat.
var ErrCommitUnknown = errors.New("database: the outcome of the commit is unknown")

// Server error numbers that this package reacts to.
const (
	errTooManyConnections = 1040
	errDiskFull           = 1021
	errBadNull            = 1048
	errServerShutdown     = 1053
	errDuplicateEntry     = 1062
	errTableFull          = 1114
	errHostBlocked        = 1129
	errParse              = 1064
	errUserConnections    = 1203
	errLockWaitTimeout    = 1205
	errDeadlock           = 1213
	errReadOnlyOption     = 1290
	errQueryInterrupted   = 1317
	errNoDefault          = 1364
	errWrongValue         = 1366
	errReadOnlyTx         = 1792
	errReadOnlyMode       = 1836
	errConnectionKilled   = 1927 // MariaDB
	errDuplicateWithKey   = 1586
	errLockNoWait         = 3572 // MySQL 8 and TiDB; MariaDB answers 1205
)

// number returns the server's error number, 0 if err did not come from a server.
func number(err error) uint16 {
	if e, ok := errors.AsType[*mysql.MySQLError](err); ok {
		return e.Number
	}
	return 0
}

// IsDuplicate reports that a unique key already has the value.
func IsDuplicate(err error) bool {
	n := number(err)
	return n == errDuplicateEntry || n == errDuplicateWithKey
}

// IsNullRefused reports that NULL was to be put where none may be. That is how a
// statement can stop the transaction it is part of, on a condition of its own.
func IsNullRefused(err error) bool { return number(err) == errBadNull }

// IsRetryable reports a deadlock or a lock wait timeout: the transaction was
// rolled back and may be run again from its start.
func IsRetryable(err error) bool {
	n := number(err)
	return n == errDeadlock || n == errLockWaitTimeout
}

// IsCommitUnknown reports ErrCommitUnknown.
func IsCommitUnknown(err error) bool { return errors.Is(err, ErrCommitUnknown) }

// IsFull reports that the server has no room left: nothing was changed.
func IsFull(err error) bool {
	n := number(err)
	return n == errDiskFull || n == errTableFull
}

// IsUnavailable reports that the server could not be reached, went away, did
// not answer in time or takes no work now. It says nothing about what an
// autocommitted statement did.
func IsUnavailable(err error) bool {
	if err == nil {
		return false
	}
	switch number(err) {
	case errTooManyConnections, errServerShutdown, errHostBlocked, errUserConnections,
		errReadOnlyOption, errReadOnlyTx, errReadOnlyMode, errConnectionKilled,
		errQueryInterrupted:
		return true
	}
	for _, target := range []error{
		driver.ErrBadConn, sql.ErrConnDone, mysql.ErrInvalidConn, mysql.ErrPktSync,
		io.EOF, io.ErrUnexpectedEOF, net.ErrClosed,
		context.DeadlineExceeded, os.ErrDeadlineExceeded,
		syscall.ECONNREFUSED, syscall.ECONNRESET, syscall.EPIPE, syscall.ENOENT,
	} {
		if errors.Is(err, target) {
			return true
		}
	}
	_, isNet := errors.AsType[net.Error](err)
	return isNet
}
