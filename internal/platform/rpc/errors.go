package rpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"im-services/internal/im"
)

const (
	// errorDomain marks our own errors among those of gRPC itself.
	errorDomain = "im"

	metaKind       = "kind"
	metaRetryAfter = "retry_after_ms"

	reasonUnavailable = "service_unavailable"
	reasonLost        = "answer_lost"
	reasonInternal    = "internal"
)

// kindCodes are the codes that kinds travel as. The kind itself travels, too;
// the code is for gRPC's own machinery, retries and health among it.
var kindCodes = map[im.Kind]codes.Code{
	im.KindInternal:     codes.Internal,
	im.KindInvalid:      codes.InvalidArgument,
	im.KindUnauthorized: codes.Unauthenticated,
	im.KindForbidden:    codes.PermissionDenied,
	im.KindNotFound:     codes.NotFound,
	im.KindConflict:     codes.FailedPrecondition,
	im.KindExhausted:    codes.ResourceExhausted,
	im.KindUnavailable:  codes.Unavailable,
	im.KindUnknown:      codes.Aborted,
}

// kindsByName reads the kind back.
var kindsByName = func() map[string]im.Kind {
	m := make(map[string]im.Kind, len(kindCodes))
	for k := range kindCodes {
		m[k.String()] = k
	}
	return m
}()

// toStatus turns a handler's error into what goes over the wire. Texts of
// causes do not: they may hold what the caller must not see.
func toStatus(err error) error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*im.Error](err); ok {
		info := &errdetails.ErrorInfo{
			Reason:   e.Reason,
			Domain:   errorDomain,
			Metadata: map[string]string{metaKind: e.Kind.String()},
		}
		if e.RetryAfter > 0 {
			info.Metadata[metaRetryAfter] = strconv.FormatInt(roundUpMillis(e.RetryAfter), 10)
		}
		code, ok := kindCodes[e.Kind]
		if !ok {
			code = codes.Internal
		}
		st, derr := status.New(code, e.Reason).WithDetails(info)
		if derr != nil {
			return status.Error(codes.Internal, reasonInternal)
		}
		return st.Err()
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return status.Error(codes.DeadlineExceeded, "deadline exceeded")
	case errors.Is(err, context.Canceled):
		return status.Error(codes.Canceled, "canceled")
	}
	if st, ok := status.FromError(err); ok {
		return st.Err()
	}
	return status.Error(codes.Internal, reasonInternal)
}

func roundUpMillis(d time.Duration) int64 {
	return int64((d + time.Millisecond - 1) / time.Millisecond)
}

// fromStatus turns what came over the wire, or did not come, into an
// *im.Error that wraps it. io.EOF, the clean end of a stream, stays as it is.
// asked means that somebody may have done what the lost answer would speak of.
func fromStatus(ctx context.Context, err error, asked bool) error {
	if err == nil || err == io.EOF { //nolint:errorlint // gRPC returns exactly io.EOF
		return err
	}
	if _, ok := errors.AsType[*im.Error](err); ok {
		return err
	}
	st, _ := status.FromError(err)
	for _, d := range st.Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok && info.GetDomain() == errorDomain {
			e := im.E(kindsByName[info.GetMetadata()[metaKind]], info.GetReason(), err)
			if ms, perr := strconv.ParseInt(info.GetMetadata()[metaRetryAfter], 10, 64); perr == nil && ms > 0 {
				e.RetryAfter = time.Duration(ms) * time.Millisecond
			}
			return e
		}
	}
	if ctx.Err() != nil { // so that errors.Is finds the reason in it
		err = fmt.Errorf("%w: %w", ctx.Err(), err)
	}
	switch st.Code() {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled:
		if asked {
			return im.E(im.KindUnknown, reasonLost, err)
		}
		return im.E(im.KindUnavailable, reasonUnavailable, err)
	default:
		return im.E(im.KindInternal, reasonInternal, err)
	}
}
