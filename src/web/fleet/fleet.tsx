import "../common/base.css";
import { render } from "preact";

render(<main><h1>R58</h1></main>, document.getElementById("app")!);
